import LanguageModels
import Support
import Tokenizers

/// Turns rows into token ids as a model's architecture reads them.
///
/// An encoder-decoder reads the prompt and writes the target, each with the tokenizer's end token. A decoder-only model
/// reads the prompt (with the tokenizer's begin token) and goes on with the target and an end token, and only the target
/// bears loss. An encoder reads the prompt and names one of ``labels``.
public struct RowEncoder: Sendable {
    public let tokenizer: Tokenizer
    public let architecture: Architecture
    /// The classes that an encoder tells apart, in the order of its outputs; empty for models that write.
    public let labels: [String]
    public let maxInputTokens: Int
    private let endToken: Int?

    /// - Throws: ``PEFTError`` for an encoder without labels, or a limit that leaves no room.
    public init(
        _ tokenizer: Tokenizer, for model: any LanguageModel, labels: [String] = [], maxInputTokens: Int
    ) throws {
        guard maxInputTokens >= 2 else {
            throw PEFTError(
                "prompts are limited to \(maxInputTokens) tokens", remedy: "at least 2 have to be allowed")
        }
        (self.tokenizer, architecture, self.labels) = (tokenizer, model.architecture, labels)
        self.maxInputTokens = maxInputTokens
        endToken = model.generationDefaults.endTokens.min() ?? tokenizer.eosTokenID
        guard architecture != .encoder || labels.count > 1 else {
            throw PEFTError(
                "a \(model.family) model needs at least two classes, and the rows have \(labels.count)",
                remedy: "name a field with classes in --target, such as --target '{label}'")
        }
    }

    public func encode(_ examples: [Example]) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        var summary = EncodingSummary()
        let numbers = Dictionary(labels.enumerated().map { ($1, $0) }, uniquingKeysWith: { first, _ in first })
        let encoded = try examples.map { example -> EncodedExample in
            let input = prompt(example.prompt)
            let target: [Int]
            switch architecture {
            case .encoderDecoder: target = tokenizer.encode(text: example.target)
            case .decoder:
                target =
                    tokenizer.encode(text: example.target, addSpecialTokens: false) + (endToken.map { [$0] } ?? [])
            case .encoder:
                guard let label = numbers[example.target] else {
                    let hint = nearestName(to: example.target, in: labels).map { "the nearest is '\($0)'" }
                    throw PEFTError(
                        "\(example.row): '\(example.target)' is none of the \(labels.count) classes", remedy: hint)
                }
                target = [label]
            }
            guard !input.ids.isEmpty, !target.isEmpty else {
                throw PEFTError(
                    "\(example.row): the prompt or the target has no tokens", remedy: "give both some text")
            }
            summary.rows += 1
            summary.truncated += input.isTruncated ? 1 : 0
            summary.inputTokens += input.ids.count
            summary.targetTokens += target.count
            summary.longestTarget = max(summary.longestTarget, target.count)
            return EncodedExample(input: input.ids, target: target)
        }
        return (encoded, summary)
    }

    /// A prompt as the model reads it; a longer one than the limit loses its end, but never a closing special token.
    public func prompt(_ text: String) -> (ids: [Int], isTruncated: Bool) {
        switch architecture {
        case .encoderDecoder: return tokenizer.encodePrompt(text, maxTokens: maxInputTokens)
        case .decoder:
            var ids = tokenizer.encode(text: text)
            // What follows is the target: an end token here would tell the model to stop.
            if let endToken, ids.count > 1, ids.last == endToken { ids.removeLast() }
            return ids.count > maxInputTokens ? (Array(ids.prefix(maxInputTokens)), true) : (ids, false)
        case .encoder:
            let ids = tokenizer.encode(text: text)
            guard ids.count > maxInputTokens else { return (ids, false) }
            // BERT's rows end with [SEP].
            let bare = tokenizer.encode(text: text, addSpecialTokens: false)
            let isClosed = ids.last != bare.last
            return (ids.prefix(maxInputTokens - (isClosed ? 1 : 0)) + (isClosed ? [ids[ids.count - 1]] : []), true)
        }
    }

    /// The classes of an encoder: those of its configuration where they have names, else those of the training rows.
    public static func labels(for model: any LanguageModel, training: [Example]) -> [String] {
        guard model.architecture == .encoder else { return [] }
        let targets = Set(training.map(\.target)).sorted()
        if let names = model.configuration["id2label"]?.object {
            let ordered = (0..<names.count).compactMap { names[String($0)]?.string }
            let known = Set(ordered)
            if ordered.count == names.count, targets.allSatisfy(known.contains) { return ordered }
        }
        return targets
    }
}
