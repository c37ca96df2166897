import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Prompt tuning (Lester et al. 2021): learned embeddings P `[tokens, size]` before the embedded input, `[P; X]`.
///
/// In an encoder-decoder they precede the encoder's input, as in the paper and in Hugging Face PEFT, whose files
/// usually contain as many rows again (`num_transformer_submodules` 2) that are never used.
public enum PromptTuning: BuiltInMethod {
    /// Options of ``PromptTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// The virtual tokens.
        public var tokens = VirtualTokens()
        /// How the prompt is initialized.
        public var start = PromptStart()

        /// The default options.
        public init() {}

        package func check() throws {
            try tokens.validate()
            try start.validate()
        }

        package enum Declaration: ConfigurationDeclaration {
            package static var fileDefaults: Configuration {
                var configuration = Configuration()
                (configuration.tokens, configuration.start) = (VirtualTokens(stacks: nil), PromptStart(.normal))
                return configuration
            }

            package static let fields = tokenFields(\.tokens) + startFields(\.start)
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = PromptTuning.Configuration
        package static let name = "prompt"
        package static let peftType: String? = "PROMPT_TUNING"
        package static let summary = "a learned soft prompt before the input (Lester et al. 2021)"
        package static let defaultLearningRate = 0.3
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "prompt tuning, \(counted(configuration.tokens.count, "token"))"
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens = configuration.tokens.resolved(for: model, size: model.inputs.first?.size)
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let tokens = resolved(configuration, for: model).tokens
            let site = try tokens.inputs(of: model, method: name)[0]
            return [
                .input(site.path, [.init("prompt_embeddings", [tokens.rows, site.size])]) { input, context in
                    SoftPrompt(
                        try configuration.start.vectors(tokens.rows, size: input.size, context),
                        rows: 0..<tokens.count)
                }
            ]
        }
    }
}
