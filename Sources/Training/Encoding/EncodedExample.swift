import LanguageModels
import Support
import Tokenizers

/// An example as token ids.
public struct EncodedExample: Sendable {
    /// The example in the form that models take.
    public let row: TrainingRow
    /// Token ids of the prompt, end token included.
    public var input: [Int] { row.input }
    /// Token ids of the target, end token included, or the labels of a head. All tokens contribute to the loss, unless
    /// ``loss`` masks some.
    public var target: [Int] { row.target }
    /// Loss mask over ``target``, for conversations of decoder-only models; `nil` if all tokens contribute.
    public let loss: [Bool]?
    /// The row of the data file, if it comes from one.
    public var location: Row.Location?

    public init(input: [Int], target: [Int], loss: [Bool]? = nil) {
        row = TrainingRow(input: input, target: target)
        self.loss = loss?.allSatisfy { $0 } ?? true ? nil : loss
    }

    public init(_ row: TrainingRow, at location: Row.Location? = nil) {
        (self.row, loss, self.location) = (row, nil, location)
    }

    /// Tokens of input and target.
    public var length: Int { input.count + target.count }
    /// Tokens that contribute to the loss.
    public var lossCount: Int { loss?.count { $0 } ?? target.count { $0 >= 0 } }
    /// Target tokens up to the last that contributes to the loss.
    var learnedLength: Int { loss.map { ($0.lastIndex(of: true) ?? -1) + 1 } ?? target.count }
}

extension Tokenizer {
    /// Encodes prompts and targets.
    ///
    /// - Parameter maxInputTokens: longer prompts are truncated, but keep the end token.
    /// - Throws: ``PEFTError`` if a prompt or a target has no tokens.
    public func encode(
        _ examples: [Example], maxInputTokens: Int
    ) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        guard maxInputTokens >= 2 else {
            throw PEFTError(
                "the maximum prompt length must be at least 2 tokens (got \(maxInputTokens))")
        }
        var summary = EncodingSummary()
        let encoded = try examples.map { example -> EncodedExample in
            let input = encodePrompt(example.prompt, maxTokens: maxInputTokens)
            let target = encode(text: example.target)
            guard !input.ids.isEmpty, !target.isEmpty else {
                throw PEFTError(
                    "\(example.row): the prompt or the target has no tokens", remedy: "add text to both")
            }
            summary.rows += 1
            summary.truncated += input.isTruncated ? 1 : 0
            summary.inputTokens += input.ids.count
            summary.targetTokens += target.count
            summary.longestTarget = max(summary.longestTarget, target.count)
            return EncodedExample(TrainingRow(input: input.ids, target: target), at: example.row)
        }
        return (encoded, summary)
    }

    /// Encodes a prompt, truncated to `maxTokens` with the end token kept.
    public func encodePrompt(_ prompt: String, maxTokens: Int) -> (ids: [Int], isTruncated: Bool) {
        let ids = encode(text: prompt)
        guard ids.count > maxTokens else { return (ids, false) }
        if let last = ids.last, last == eosTokenID { return (ids.prefix(maxTokens - 1) + [last], true) }
        return (Array(ids.prefix(maxTokens)), true)
    }
}
