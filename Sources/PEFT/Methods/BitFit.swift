import LanguageModels
import PEFTSupport

/// BitFit (Ben Zaken et al. 2022): trains only the biases, and the classification head if it is untrained.
public enum BitFit: BuiltInMethod {
    /// Options of ``BitFit``.
    public struct Configuration: BuiltInConfiguration {
        /// The default options.
        public init() {}
        package func check() throws {}

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] = []
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = BitFit.Configuration
        package static let name = "bitfit"
        package static let peftType: String? = "BITFIT"
        package static let isReadableByHuggingFace = false
        package static let summary = "train only the bias terms (Ben Zaken et al. 2022)"
        package static let defaultLearningRate = 1e-3

        package static func label(_ configuration: Configuration) -> String { "BitFit" }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let biases = model.parameters.filter { $0.leaf == "bias" }
            guard !biases.isEmpty else {
                throw PEFTError(
                    "this \(model.family) model has no biases, so BitFit has nothing to train",
                    remedy: "train its norms instead with --method layernorm")
            }
            return biases.map { .train($0.path, shape: $0.shape) }
        }
    }
}
