import LanguageModels
import PEFTSupport

/// Trains only the untrained head over the frozen base: a linear probe (Alain & Bengio 2017), the baseline for every
/// method on a model without a head for the task.
public enum HeadTraining: PEFTMethod {
    public static let name = "head"
    public static let peftType: String? = "HEAD"
    public static let isReadableByHuggingFace = false
    public static let summary = "train only the new head over the frozen base (linear probe)"
    public static let defaultLearningRate = 3e-2

    public struct Configuration: MethodConfiguration {
        public init() {}
        public static let fields: [ConfigurationField<Configuration>] = []
        public func validate() throws {}
    }

    public static func label(_ configuration: Configuration) -> String { "head alone" }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let own = model.parameters.filter { parameter in
            model.newModules.contains { parameter.path.hasPrefix($0 + ".") }
        }
        guard !own.isEmpty else {
            throw PEFTError(
                "this \(model.family) model has no untrained head for \(model.head.task.rawValue), so there is nothing to train",
                remedy: "choose another method")
        }
        return own.map { .train($0.path, shape: $0.shape) }
    }
}
