import PEFTSupport
import Training

/// What `peft train` prints of its data.
extension TrainingData {
    /// Prints notes about the detected format, and about truncated and dropped examples.
    func showNotes() {
        for note in notes { Console.note(note) }
    }

    /// Prints the first batch.
    func show(_ configuration: TrainingConfiguration, showsIDs: Bool, json: Bool = false) {
        let display = BatchDisplay(tokenizer: tokenizer, architecture: architecture, head: head, showsIDs: showsIDs)
        let plan = BatchPlan(configuration, training)
        if json {
            print(display.json(plan, training, summary).text())
        } else {
            display.show(plan, training)
            print(
                "\(counted(summary.rows, "row")) in all: \(counted(summary.inputTokens, "token")) without loss, "
                    + "\(Console.grouped(summary.targetTokens)) with loss; \(summary.truncated) truncated, \(summary.dropped) dropped"
            )
        }
        showNotes()
    }
}
