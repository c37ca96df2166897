import LanguageModels
import PEFTSupport

/// BitFit (Ben Zaken et al. 2022): trains only the biases, and the classification head if it is untrained.
public enum BitFit: PEFTMethod {
    public static let name = "bitfit"
    public static let peftType: String? = "BITFIT"
    public static let isReadableByHuggingFace = false
    public static let summary = "train only the bias terms (Ben Zaken et al. 2022)"
    public static let defaultLearningRate = 1e-3

    public struct Configuration: MethodConfiguration {
        public init() {}
        public static let fields: [ConfigurationField<Configuration>] = []
        public func validate() throws {}
    }

    public static func label(_ configuration: Configuration) -> String { "BitFit" }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let biases = model.parameters.filter { $0.leaf == "bias" }
        guard !biases.isEmpty else {
            throw PEFTError(
                "this \(model.family) model has no biases, so BitFit has nothing to train",
                remedy: "train its norms instead with --method layernorm")
        }
        return biases.map { .train($0.path, shape: $0.shape) }
    }
}
