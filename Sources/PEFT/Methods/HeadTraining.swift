import LanguageModels
import PEFTSupport

/// Trains only the untrained head over the frozen base: a linear probe (Alain & Bengio 2017), the baseline for every
/// method on a model without a head for the task.
public enum HeadTraining: BuiltInMethod {
    /// Options of ``HeadTraining``.
    public struct Configuration: BuiltInConfiguration {
        /// The default options.
        public init() {}
        package func check() throws {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] = []
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = HeadTraining.Configuration
        package static let name = "head"
        package static let peftType: String? = "HEAD"
        package static let isReadableByHuggingFace = false
        package static let summary = "train only the new head over the frozen base (linear probe)"
        package static let defaultLearningRate = 3e-2

        package static func label(_ configuration: Configuration) -> String { "head alone" }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
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
}
