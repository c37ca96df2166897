import PEFTSupport

extension TrainingData {
    /// Notes for the user on the detected format, on truncated and dropped examples, and on what a model won't learn from
    /// the data.
    public var notes: [String] {
        var notes: [String] = []
        if let recognized { notes.append(recognized.note) }
        func examples(_ count: Int) -> String { counted(count, "example") }
        if summary.truncated > 0 {
            let (what, option) =
                format.chat == nil
                ? (counted(summary.truncated, "prompt"), "--max-input")
                : (examples(summary.truncated), "--max-length")
            let isOne = summary.truncated == 1
            notes.append(
                "\(what) \(isOne ? "is" : "are") truncated to \(maxTokens) tokens; raise \(option) to keep more")
        }
        if summary.dropped > 0 {
            let isOne = summary.dropped == 1
            notes.append(
                "\(examples(summary.dropped)) \(isOne ? "has" : "have") no token that contributes to the loss and \(isOne ? "is" : "are") dropped"
            )
        }
        if summary.openTurns > 0 {
            notes.append(
                "in \(examples(summary.openTurns)) no special token that contributes to the loss ends an assistant turn; the model won't learn to stop"
            )
        }
        if summary.turnsWithoutReasoning > 0, let tag = summary.reasoningTag {
            notes.append(
                "the generation prompt opens \(tag), but \(examples(summary.turnsWithoutReasoning)) \(summary.turnsWithoutReasoning == 1 ? "ends" : "end") with a turn without reasoning; such turns are trained without it, as the chat template renders them"
            )
        }
        if !summary.unusedFields.isEmpty {
            notes.append("unused fields of the data: \(summary.unusedFields.sorted().joined(separator: ", "))")
        }
        return notes
    }
}
