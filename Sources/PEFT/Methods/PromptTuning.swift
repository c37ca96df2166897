import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Prompt tuning (Lester et al. 2021): learned embeddings P `[tokens, size]` before the embedded input, `[P; X]`.
///
/// In an encoder-decoder they precede the encoder's input, as in the paper and in Hugging Face PEFT, whose files
/// usually contain as many rows again (`num_transformer_submodules` 2) that are never used.
public enum PromptTuning: PEFTMethod {
    public static let name = "prompt"
    public static let peftType: String? = "PROMPT_TUNING"
    public static let summary = "a learned soft prompt before the input (Lester et al. 2021)"
    public static let defaultLearningRate = 0.3
    public static let start = AdapterStart.changed
    public static let isMergeable = false

    public struct Configuration: MethodConfiguration {
        public var tokens = VirtualTokens()
        public var start = PromptStart()

        public init() {}

        public static var fileDefaults: Configuration {
            var configuration = Configuration()
            (configuration.tokens, configuration.start) = (VirtualTokens(stacks: nil), PromptStart(.normal))
            return configuration
        }

        public static let fields = tokenFields(\.tokens) + startFields(\.start)
        public static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]

        public func validate() throws {
            try tokens.validate()
            try start.validate()
        }
    }

    public static func label(_ configuration: Configuration) -> String {
        "prompt tuning, \(counted(configuration.tokens.count, "token"))"
    }

    public static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
        var configuration = configuration
        configuration.tokens = configuration.tokens.resolved(for: model, size: model.inputs.first?.size)
        return configuration
    }

    public static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
        let tokens = resolved(configuration, for: model).tokens
        let site = try tokens.inputs(of: model, method: name)[0]
        return [
            .input(site.path, [.init("prompt_embeddings", [tokens.rows, site.size])]) { input, context in
                SoftPrompt(
                    try configuration.start.vectors(tokens.rows, size: input.size, context), rows: 0..<tokens.count)
            }
        ]
    }
}
