import LanguageModels
import Support
import Tokenizers

/// A row as token ids.
public struct EncodedExample: Sendable {
    /// The row as models take it.
    public let row: TrainingRow
    /// What the model reads, end token included.
    public var input: [Int] { row.input }
    /// What it is to write, end token included; every one of these tokens bears loss.
    public var target: [Int] { row.target }

    public init(input: [Int], target: [Int]) { row = TrainingRow(input: input, target: target) }
    public init(_ row: TrainingRow) { self.row = row }
}

/// What encoding did to a data set.
public struct EncodingSummary: Sendable {
    public var rows = 0
    /// Rows whose prompt was cut to the limit. Targets are never cut.
    public var truncated = 0
    public var inputTokens = 0
    public var targetTokens = 0
    public var longestTarget = 0

    mutating func add(_ row: TrainingRow, isTruncated: Bool) {
        rows += 1
        truncated += isTruncated ? 1 : 0
        inputTokens += row.input.count + row.candidates.reduce(0) { $0 + $1.count }
        targetTokens += row.target.count { $0 >= 0 }
        longestTarget = max(longestTarget, row.target.count)
    }
}

extension Tokenizer {
    /// Encodes prompts and targets.
    ///
    /// - Parameter maxInputTokens: a longer prompt loses its end, but never the end token.
    /// - Throws: ``PEFTError`` if a prompt or a target has no tokens.
    public func encode(
        _ examples: [Example], maxInputTokens: Int
    ) throws -> (examples: [EncodedExample], summary: EncodingSummary) {
        guard maxInputTokens >= 2 else {
            throw PEFTError(
                "prompts are limited to \(maxInputTokens) tokens", remedy: "at least 2 have to be allowed")
        }
        var summary = EncodingSummary()
        let encoded = try examples.map { example -> EncodedExample in
            let input = encodePrompt(example.prompt, maxTokens: maxInputTokens)
            let target = encode(text: example.target)
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

    /// A prompt as the model reads it.
    public func encodePrompt(_ prompt: String, maxTokens: Int) -> (ids: [Int], isTruncated: Bool) {
        let ids = encode(text: prompt)
        guard ids.count > maxTokens else { return (ids, false) }
        if let last = ids.last, last == eosTokenID { return (ids.prefix(maxTokens - 1) + [last], true) }
        return (Array(ids.prefix(maxTokens)), true)
    }
}
