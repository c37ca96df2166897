import LanguageModels
import Torch
import TorchNN

/// Full fine-tuning: trains every parameter, the reference for other methods.
public enum FullFineTuning: PEFTMethod {
    public static let name = "full"
    public static let peftType: String? = nil
    public static let summary = "every parameter of the model"
    public static let defaultLearningRate = 3e-4

    public struct Configuration: MethodConfiguration {
        public init() {}
        public static let fields: [ConfigurationField<Configuration>] = []
        public func validate() throws {}
    }

    public static func label(_ configuration: Configuration) -> String { "full fine-tuning" }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        model.parameters.map { .train($0.path, shape: $0.shape, keepsBase: false) }
    }
}
