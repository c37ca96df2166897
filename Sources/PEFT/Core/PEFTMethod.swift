import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// A PEFT method. Each is one file in `Methods/` and one line in ``PEFTMethods``.
public protocol PEFTMethod: SendableMetatype {
    associatedtype Configuration: MethodConfiguration
    /// Command-line name, lower case.
    static var name: String { get }
    /// `peft_type` in `adapter_config.json`; `nil` for a method that saves the whole model. Several methods may share
    /// one, such as LoRA variants that are a setting in Hugging Face's files.
    static var peftType: String? { get }
    /// Whether Hugging Face PEFT supports the type; its readers reject others.
    static var isReadableByHuggingFace: Bool { get }
    /// One line for help and documentation.
    static var summary: String { get }
    /// A learning rate that usually works, and the center of a learning-rate search.
    static var defaultLearningRate: Double { get }
    /// The model's output right after attaching.
    static var start: AdapterStart { get }
    /// Default weight format of the base model; `nil` keeps the stored one.
    static var baseStorage: WeightStorage? { get }
    /// Whether the adapter can be merged into the weights.
    static var isMergeable: Bool { get }
    /// The default configuration of this method.
    static var defaults: Configuration { get }
    /// A short label for reports, such as `LoRA r 8 (q, v)`.
    static func label(_ configuration: Configuration) -> String
    /// Plans what to attach where. Pure: it reads only paths and shapes, so that every error occurs before any
    /// change, and a model on the meta device can be planned.
    static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment]
    /// The configuration with all model-dependent defaults filled in, as an adapter file stores it.
    static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration
    /// The method's training hook; `nil` for most.
    static func trainingHook(_ configuration: Configuration, for adapter: Adapter) -> (any TrainingHook)?
    /// The configuration to store for a trained adapter, if training changed it (for example, ranks).
    static func fileConfiguration(_ configuration: Configuration, of adapter: Adapter) -> Configuration
    /// Whether an `adapter_config.json` is this method's, among methods that share a `peft_type`.
    static func recognizes(_ json: [String: JSON]) -> Bool
}

/// A model's output right after a method is attached.
public enum AdapterStart: Sendable {
    /// Unchanged, bit for bit or up to rounding.
    case unchanged
    /// Changed, for example by new virtual tokens.
    case changed
}

// Documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
// Documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension PEFTMethod {
    public static var isReadableByHuggingFace: Bool { peftType != nil }
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
    public static func recognizes(_ json: [String: JSON]) -> Bool { true }
}

/// A method's part in training beyond gradients: a data-dependent initialization (EVA), a penalty, or a rank schedule
/// (AdaLoRA).
public protocol TrainingHook: AnyObject {
    /// Called before the first step, but not when a run is resumed. `forward` runs the next training batch through
    /// the model without gradients, and returns `false` when there is none left.
    func begin(totalSteps: Int, forward: () throws -> Bool) throws
    /// A term added to each step's loss; `nil` for none.
    func penalty() -> Tensor?
    /// Called after the backward pass of `step` (from 1), before the optimizer step.
    func beforeUpdate(step: Int, totalSteps: Int)
    /// Called after the optimizer step.
    func afterUpdate(step: Int, totalSteps: Int)
    /// Whether it changes values of parameters between steps.
    var changesParameters: Bool { get }
    /// State to store in a checkpoint, by name.
    func state() -> [String: Tensor]
    func restore(_ state: [String: Tensor], step: Int) throws
}

// Documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
// Documented by the requirements.
// swift-format-ignore: AllPublicDeclarationsHaveDocumentation
extension TrainingHook {
    public func begin(totalSteps: Int, forward: () throws -> Bool) throws {}
    public func penalty() -> Tensor? { nil }
    public var changesParameters: Bool { false }
    public func beforeUpdate(step: Int, totalSteps: Int) {}
    public func afterUpdate(step: Int, totalSteps: Int) {}
    public func state() -> [String: Tensor] { [:] }
    public func restore(_ state: [String: Tensor], step: Int) throws {}
}

/// Parameter counts of a plan, without building it.
public struct PlanSummary: Sendable {
    /// Number of trained parameters.
    public let trainable: Int
    /// Number of the model's own and the added parameters.
    public let total: Int
    /// Number of trained parameters by component.
    public let byComponent: [Component: Int]
    /// Fraction of trained parameters.
    public var share: Double { total > 0 ? Double(trainable) / Double(total) : 0 }

    /// Counts the parameters of a plan.
    /// - Parameters:
    ///   - attachments: what the method attaches (``MethodChoice/plan(for:)``).
    ///   - outline: the model.
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
        case .experts: .feedForward
        case .output:
            outline.outputs.first { $0.path == attachment.path }?.kind == .feedForward ? .feedForward : .attention
        case .linear, .parameter: .other
        }
    }
}
