import LanguageModels
import PEFTSupport
import PEFTTokenizers

/// Encodes examples to token ids for a model's task.
///
/// An encoder-decoder reads the prompt and generates the target, each with the tokenizer's end token. A decoder-only model
/// reads the prompt (with the tokenizer's begin token) and continues with the target and an end token; only the target
/// contributes to the loss. For models with a head, see ``HeadTask``.
public struct RowEncoder: Sendable {
    package let tokenizer: Tokenizer
    package let architecture: Architecture
    package let head: ModelHead
    /// Maximum number of tokens of a prompt, or of a text that a model with a head reads.
    package let maxInputTokens: Int
    private let limits: InputLimits
    private let endToken: Int?
    private let defaults: GenerationDefaults
    /// Encodes the texts of a model with a head.
    let texts: TextEncoder

    /// - Parameters:
    ///   - maxInputTokens: maximum number of prompt tokens; lowered to the model's limit (``InputLimits``).
    ///   - virtualTokens: virtual tokens that a method not attached yet will prepend.
    /// - Throws: ``PEFTError`` for a classification head with fewer than 2 labels, or a limit below 2 tokens.
    package init(
        _ tokenizer: Tokenizer, for model: any LanguageModel, maxInputTokens: Int, virtualTokens: Int = 0
    ) throws {
        guard maxInputTokens >= 2 else {
            throw PEFTError(
                "the maximum prompt length must be at least 2 tokens (got \(maxInputTokens))")
        }
        (self.tokenizer, architecture, head) = (tokenizer, model.architecture, model.head)
        limits = try InputLimits(model, tokenizer, virtualTokens: virtualTokens)
        self.maxInputTokens = min(maxInputTokens, limits.input ?? .max)
        endToken = model.generationDefaults.endTokens.min() ?? tokenizer.eosTokenID
        defaults = model.generationDefaults
        texts = TextEncoder(tokenizer, for: model, maxTokens: self.maxInputTokens)
        guard head.task != .classification || head.labels.count > 1 else {
            throw PEFTError(
                "a classifier needs at least two classes, but the examples have \(head.labels.count)",
                remedy: "name the class field in --target, such as --target '{label}'")
        }
    }

    package func encode(_ examples: [Example]) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        var summary = EncodingSummary()
        if let task = head.headTask {
            let encoded = try examples.map { example -> EncodedExample in
                try checkTarget(example)
                let (row, isTruncated) = try withTokenizerErrors {
                    try task.encode(example, texts, needsTarget: true)
                }
                try limits.check(row, of: example)
                summary.add(row, isTruncated: isTruncated)
                return EncodedExample(row, at: example.row)
            }
            return (encoded, summary)
        }
        let encoded = try examples.map { example -> EncodedExample in
            try checkTarget(example)
            let tokenizer = try tokenizer(for: example.languages, example.row)
            let (input, target) = try withTokenizerErrors {
                (
                    prompt(example.prompt, tokenizer),
                    architecture == .encoderDecoder
                        ? tokenizer.encode(target: example.target)
                        : tokenizer.encode(text: example.target, addSpecialTokens: false)
                            + (endToken.map { [$0] } ?? [])
                )
            }
            guard !input.ids.isEmpty, !target.isEmpty else {
                throw PEFTError(
                    "\(example.row): the prompt or the target has no tokens", remedy: "add text to both")
            }
            let row = TrainingRow(input: input.ids, target: target)
            try limits.check(row, of: example)
            summary.add(row, isTruncated: input.isTruncated)
            return EncodedExample(row, at: example.row)
        }
        return (encoded, summary)
    }

    /// Whether the model has all labels of an example.
    package func knowsLabels(of example: Example) -> Bool {
        head.headTask?.unknownLabels(of: example).isEmpty ?? true
    }

    /// An empty target is valid only for multi-label tasks (no labels) and embeddings.
    func checkTarget(_ example: Example) throws {
        try checkLanguages(example)
        guard example.target.isBlank, head.task != .multiLabel, head.task != .embeddings else { return }
        throw PEFTError(
            "the target is empty for \(example.row)", remedy: "fill in the row's fields or remove the row")
    }

    // MARK: Languages

    /// - Throws: ``PEFTError`` for languages of a text that is not translated.
    func checkLanguages(_ example: Example) throws {
        guard !example.languages.isEmpty, !head.task.generates else { return }
        throw PEFTError(
            "--source-language and --target-language are for models that generate text",
            remedy: "remove them")
    }

    /// The tokenizer for the languages of an example.
    /// - Throws: ``PEFTError`` for a language that it doesn't have, or a model that doesn't translate.
    private func tokenizer(for languages: TranslationLanguages, _ row: Row.Location? = nil) throws -> Tokenizer {
        guard !languages.isEmpty else { return tokenizer }
        guard architecture == .encoderDecoder else {
            throw PEFTError(
                "--source-language and --target-language are for encoder-decoders that translate",
                remedy: "name the languages in --prompt")
        }
        do { return try tokenizer.translating(languages) } catch let error as PEFTError {
            guard let row else { throw error }
            throw PEFTError("\(error.problem) (\(row))", remedy: error.remedy)
        }
    }

    /// How a generated text of these languages begins.
    package func beginning(_ languages: TranslationLanguages) throws -> TextBeginning {
        guard languages.target != nil else { return TextBeginning() }
        return TextBeginning(language: try tokenizer(for: languages).targetLanguageID, tokenizer, defaults)
    }

    /// How the text that is learned from a target begins.
    package func beginning(of target: [Int]) -> TextBeginning {
        TextBeginning(language: tokenizer.language(of: target), tokenizer, defaults)
    }

    // MARK: Prompts

    /// Encodes a prompt, truncated to the limit with its closing special tokens kept.
    package func prompt(_ text: String) -> (ids: [Int], isTruncated: Bool) { prompt(text, tokenizer) }

    package func prompt(_ text: String, languages: TranslationLanguages) throws -> (ids: [Int], isTruncated: Bool) {
        prompt(text, try tokenizer(for: languages))
    }

    private func prompt(_ text: String, _ tokenizer: Tokenizer) -> (ids: [Int], isTruncated: Bool) {
        if !head.task.generates { return texts.encode(text) }
        switch architecture {
        case .encoderDecoder:
            let ids = tokenizer.encode(text: text)
            guard ids.count > maxInputTokens else { return (ids, false) }
            // The end token stays, and a language after it.
            let end = ids.suffix(tokenizer.hasLanguageAtEnd ? 2 : 1)
            if end.first == tokenizer.eosTokenID {
                return (Array(ids.prefix(max(0, maxInputTokens - end.count)) + end), true)
            }
            return (Array(ids.prefix(maxInputTokens)), true)
        case .decoder, .encoder:
            var ids = tokenizer.encode(text: text)
            // The target follows, so drop an end token.
            if let endToken, ids.count > 1, ids.last == endToken { ids.removeLast() }
            // With an empty prompt, the first target token still needs a token to be predicted from.
            if ids.isEmpty, let first = tokenizer.bosTokenID ?? endToken { ids = [first] }
            return ids.count > maxInputTokens ? (Array(ids.prefix(maxInputTokens)), true) : (ids, false)
        }
    }
}
