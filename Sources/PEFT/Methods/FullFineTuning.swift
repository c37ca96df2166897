import LanguageModels
import Torch
import TorchNN

/// Full fine-tuning: trains every parameter, the reference for other methods.
public enum FullFineTuning: BuiltInMethod {
    /// Options of ``FullFineTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// The default options.
        public init() {}
        package func check() throws {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] = []
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = FullFineTuning.Configuration
        package static let name = "full"
        package static let peftType: String? = nil
        package static let summary = "every parameter of the model"
        package static let defaultLearningRate = 3e-4

        package static func label(_ configuration: Configuration) -> String { "full fine-tuning" }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            model.parameters.filter { !$0.isBuffer }.map { .train($0.path, shape: $0.shape, keepsBase: false) }
        }
    }
}
