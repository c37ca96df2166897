import LanguageModels
import Support
import Torch
import TorchNN

/// A way to adapt a model. Each is one file in `Methods/` and one line in ``PEFTMethods``.
public protocol PEFTMethod: SendableMetatype {
    associatedtype Configuration: MethodConfiguration
    /// Name on the command line, lower case.
    static var name: String { get }
    /// `peft_type` in `adapter_config.json`; `nil` for a method that is saved as a whole model. Several methods may
    /// share one: variants that are a setting in Hugging Face's files.
    static var peftType: String? { get }
    /// Whether Hugging Face PEFT knows the type; its readers refuse files of others.
    static var isHuggingFaces: Bool { get }
    /// One line for help and documentation.
    static var summary: String { get }
    /// A learning rate that usually works, the middle of a search.
    static var defaultLearningRate: Double { get }
    /// What the model computes right after attaching.
    static var start: AdapterStart { get }
    /// How the method's base is kept where nothing else is asked for; `nil` for as it is stored.
    static var baseStorage: WeightStorage? { get }
    /// Whether the update can be worked into the weights.
    static var isMergeable: Bool { get }
    /// The configuration that the name stands for.
    static var defaults: Configuration { get }
    /// What a reader of a report sees, such as `LoRA r 8 (q, v)`.
    static func label(_ configuration: Configuration) -> String
    /// What is to be attached where. Pure: it reads paths and shapes and changes nothing, so that every error
    /// comes before any change, and a model on the meta device can be planned.
    static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment]
    /// The configuration with everything spelled out that it leaves to the model, as an adapter's file says it.
    static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration
    /// What the method does while training, beyond gradients; `nil` for most.
    static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)?
    /// The configuration that an adapter's file is to have, where training changed what it says (ranks, say).
    static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration
    /// Whether an adapter with this `adapter_config.json` is this method's; asked among those that share a type.
    static func recognises(_ json: [String: JSON]) -> Bool
}

/// What a model computes right after a method is attached.
public enum AdapterStart: Sendable {
    /// The same as before, bit for bit or within rounding.
    case unchanged
    /// Something else: new virtual tokens, say.
    case changed
}

extension PEFTMethod {
    public static var isHuggingFaces: Bool { peftType != nil }
    public static var defaults: Configuration { Configuration() }
    public static var start: AdapterStart { .unchanged }
    public static var baseStorage: WeightStorage? { nil }
    public static var isMergeable: Bool { true }
    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        configuration
    }
    public static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)? {
        nil
    }
    public static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration {
        configuration
    }
    public static func recognises(_ json: [String: JSON]) -> Bool { true }
}

/// A method's part in training, beyond gradients: an initialisation that looks at data (EVA), a penalty, a schedule
/// of ranks (AdaLoRA).
public protocol TrainingHook: AnyObject {
    /// Before the first step. `forward` runs the next training batch through the model without gradients, and
    /// returns `false` when there is none left. Not called for a run that is resumed.
    func begin(totalSteps: Int, forward: () throws -> Bool) throws
    /// A term added to each step's loss.
    func penalty() -> Tensor?
    /// After the gradients of `step` (from 1) are there, before the optimizer uses them.
    func beforeUpdate(step: Int, totalSteps: Int)
    /// After the optimizer's step.
    func afterUpdate(step: Int, totalSteps: Int)
    /// What the next step depends on, by name.
    func state() -> [String: Tensor]
    func restore(_ state: [String: Tensor], step: Int) throws
}

extension TrainingHook {
    public func begin(totalSteps: Int, forward: () throws -> Bool) throws {}
    public func penalty() -> Tensor? { nil }
    public func beforeUpdate(step: Int, totalSteps: Int) {}
    public func afterUpdate(step: Int, totalSteps: Int) {}
    public func state() -> [String: Tensor] { [:] }
    public func restore(_ state: [String: Tensor], step: Int) throws {}
}

/// What a plan would add and train, counted without building it.
public struct PlanSummary: Sendable {
    /// Parameters that training changes.
    public let trainable: Int
    /// The model's own and the added ones.
    public let total: Int
    /// Trained parameters by what they are part of.
    public let byComponent: [Component: Int]
    public var share: Double { total > 0 ? Double(trainable) / Double(total) : 0 }

    public init(_ attachments: [Attachment], outline: ModelOutline) {
        let components = Dictionary(
            outline.parameters.map { ($0.path, $0.component) }, uniquingKeysWith: { first, _ in first })
        var added = 0
        var trained = 0
        var byComponent: [Component: Int] = [:]
        var seen: Set<String> = []
        for attachment in attachments {
            for tensor in attachment.tensors where seen.insert(attachment.fileKey(tensor.key)).inserted {
                if attachment.site != .parameter, tensor.isTrained || tensor.isStored { added += tensor.count }
                guard tensor.isTrained else { continue }
                trained += tensor.count
                let component =
                    components[attachment.path] ?? components[attachment.path + ".weight"]
                    ?? Self.component(of: attachment, outline)
                byComponent[component, default: 0] += tensor.count
            }
        }
        trainable = trained
        total = outline.parameterCount + added
        self.byComponent = byComponent
    }

    private static func component(of attachment: Attachment, _ outline: ModelOutline) -> Component {
        switch attachment.site {
        case .input, .embedding: .embedding
        case .keyValues: .attention
        case .output:
            outline.outputs.first { $0.path == attachment.path }?.kind == .feedForward ? .feedForward : .attention
        case .linear, .parameter: .other
        }
    }
}
