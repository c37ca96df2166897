import LanguageModels
import Support
import Torch
import TorchNN

/// A way to adapt a model. Each is one file in `Methods/` and one line in ``PEFTMethods``.
public protocol PEFTMethod: SendableMetatype {
    associatedtype Configuration: MethodConfiguration
    /// Name on the command line, lower case.
    static var name: String { get }
    /// `peft_type` in Hugging Face's `adapter_config.json`; `nil` for a method that has no such file.
    static var huggingFaceType: String? { get }
    /// One line for help and documentation.
    static var summary: String { get }
    /// A learning rate that usually works, the middle of a search.
    static var defaultLearningRate: Double { get }
    /// What a reader of a report sees, such as `LoRA r 8 (q, v)`.
    static func label(_ configuration: Configuration) -> String
    /// What is to be attached where. Pure: it reads paths and shapes and changes nothing, so that every error
    /// comes before any change, and a model on the meta device can be planned.
    static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment]
    /// The configuration with everything spelled out that it leaves to the model, as an adapter's file says it.
    static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration
}

extension PEFTMethod {
    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        configuration
    }
}

/// One change to a model that a method asks for.
public enum Attachment {
    /// An adapter over the projection at `path`. `parameters` names the tensors it adds, with their shapes;
    /// `make` builds it for the projection.
    case linear(
        path: String, parameters: [(key: String, shape: [Int])],
        make: (Linear, inout SeededRandom) throws -> any LinearAdapter & KeyedParameters)
    /// A tensor of the model itself is trained.
    case train(path: String)
}

/// An adapter whose tensors have names in Hugging Face's files.
public protocol KeyedParameters: Module {
    /// Name below the projection's path, with the tensor.
    var keyedParameters: [(key: String, parameter: Parameter)] { get }
}

/// What a method may know of a model when it plans: paths and shapes.
public struct ModelOutline {
    public struct LinearSite: Sendable {
        public let path: String
        public let inputs: Int
        public let outputs: Int
    }
    public let family: String
    public let linears: [LinearSite]
    public let parameters: [(path: String, shape: [Int])]
    public let outputLayer: String

    public init(_ model: any LanguageModel) {
        family = model.family
        outputLayer = model.outputLayer
        linears = model.namedModules().compactMap { path, module in
            (module as? Linear).map { LinearSite(path: path, inputs: $0.inputs, outputs: $0.outputs) }
        }
        parameters = model.parameters().map { ($0.path, $0.parameter.tensor.shape) }
    }

    public var parameterCount: Int { parameters.reduce(0) { $0 + $1.shape.reduce(1, *) } }
}

/// What a plan would add and train, counted without building it.
public struct PlanSummary: Sendable {
    /// Parameters that training changes.
    public let trainable: Int
    /// The model's own and the added ones.
    public let total: Int
    public var share: Double { total > 0 ? Double(trainable) / Double(total) : 0 }

    public init(_ attachments: [Attachment], outline: ModelOutline) {
        let sizes = Dictionary(outline.parameters.map { ($0.path, $0.shape.reduce(1, *)) }, uniquingKeysWith: { $1 })
        var added = 0
        var own = 0
        for attachment in attachments {
            switch attachment {
            case .linear(_, let parameters, _): added += parameters.reduce(0) { $0 + $1.shape.reduce(1, *) }
            case .train(let path): own += sizes[path] ?? 0
            }
        }
        trainable = added + own
        total = outline.parameterCount + added
    }
}
