import LanguageModels

/// Counts from encoding a dataset.
package struct EncodingSummary: Sendable {
    package var rows = 0
    /// Examples whose prompt was truncated. Targets are never truncated.
    package var truncated = 0
    /// Examples dropped because no token contributes to the loss.
    package var dropped = 0
    /// Examples with a turn without an end token, from which a model doesn't learn to stop.
    package var openTurns = 0
    /// Examples whose last turn lacks the reasoning that the generation prompt opens, and the opening tag.
    package var turnsWithoutReasoning = 0
    package var reasoningTag: String?
    /// Ignored fields of chat rows.
    package var unusedFields: Set<String> = []
    package var inputTokens = 0
    /// Tokens that contribute to the loss.
    package var targetTokens = 0
    package var longestTarget = 0

    mutating func add(_ row: TrainingRow, isTruncated: Bool) {
        rows += 1
        truncated += isTruncated ? 1 : 0
        inputTokens += row.input.count + row.candidates.reduce(0) { $0 + $1.count }
        targetTokens += row.target.count { $0 >= 0 }
        longestTarget = max(longestTarget, row.target.count)
    }

    /// Adds the counts of other examples.
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

    /// Adds a conversation, in which only some tokens contribute to the loss.
    mutating func add(_ example: EncodedExample) {
        rows += 1
        targetTokens += example.lossCount
        inputTokens += example.length - example.lossCount
        longestTarget = max(longestTarget, example.target.count)
    }
}
