import LanguageModels
import Support
import Tokenizers

/// A row as token ids.
public struct EncodedExample: Sendable {
    /// The row as models take it.
    public let row: TrainingRow
    /// What the model reads, end token included.
    public var input: [Int] { row.input }
    /// What follows, end token included, or what a head is to say. Every token of a text bears loss, unless ``loss`` says
    /// otherwise.
    public var target: [Int] { row.target }
    /// Which tokens of ``target`` bear loss, in a decoder-only model's row of several turns; `nil` for all.
    public let loss: [Bool]?
    /// The row of the data file that it was made of, where it was made of one.
    public var location: Row.Location?

    public init(input: [Int], target: [Int], loss: [Bool]? = nil) {
        row = TrainingRow(input: input, target: target)
        self.loss = loss?.allSatisfy { $0 } ?? true ? nil : loss
    }

    public init(_ row: TrainingRow, at location: Row.Location? = nil) {
        (self.row, loss, self.location) = (row, nil, location)
    }

    /// Tokens of both.
    public var length: Int { input.count + target.count }
    /// Tokens that bear loss.
    public var lossCount: Int { loss?.count { $0 } ?? target.count { $0 >= 0 } }
    /// The target's tokens up to the last that bears loss.
    var learnedLength: Int { loss.map { ($0.lastIndex(of: true) ?? -1) + 1 } ?? target.count }
}

/// What encoding did to a data set.
public struct EncodingSummary: Sendable {
    public var rows = 0
    /// Rows whose prompt was cut to the limit. Targets are never cut.
    public var truncated = 0
    /// Rows of which no token bears loss, so that they were left out.
    public var dropped = 0
    /// Rows with a turn that no special token ends, so that a model won't learn to stop.
    public var openTurns = 0
    /// Rows whose last turn doesn't begin with the reasoning that the generation prompt opens, and the tag that opens it.
    public var turnsWithoutReasoning = 0
    public var reasoningTag: String?
    /// Fields of chats' rows of which nothing was made.
    public var unusedFields: Set<String> = []
    public var inputTokens = 0
    /// Tokens that bear loss.
    public var targetTokens = 0
    public var longestTarget = 0

    mutating func add(_ row: TrainingRow, isTruncated: Bool) {
        rows += 1
        truncated += isTruncated ? 1 : 0
        inputTokens += row.input.count + row.candidates.reduce(0) { $0 + $1.count }
        targetTokens += row.target.count { $0 >= 0 }
        longestTarget = max(longestTarget, row.target.count)
    }

    /// Adds what encoding other rows did.
    mutating func add(_ other: EncodingSummary) {
        rows += other.rows
        truncated += other.truncated
        dropped += other.dropped
        openTurns += other.openTurns
        turnsWithoutReasoning += other.turnsWithoutReasoning
        reasoningTag = reasoningTag ?? other.reasoningTag
        unusedFields.formUnion(other.unusedFields)
        inputTokens += other.inputTokens
        targetTokens += other.targetTokens
        longestTarget = max(longestTarget, other.longestTarget)
    }

    /// Adds a row of a chat, in which not all that follows the first token with loss bears it.
    mutating func add(_ example: EncodedExample) {
        rows += 1
        targetTokens += example.lossCount
        inputTokens += example.length - example.lossCount
        longestTarget = max(longestTarget, example.target.count)
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

    /// A prompt as the model reads it.
    public func encodePrompt(_ prompt: String, maxTokens: Int) -> (ids: [Int], isTruncated: Bool) {
        let ids = encode(text: prompt)
        guard ids.count > maxTokens else { return (ids, false) }
        if let last = ids.last, last == eosTokenID { return (ids.prefix(maxTokens - 1) + [last], true) }
        return (Array(ids.prefix(maxTokens)), true)
    }
}
