import LanguageModels
import PEFTSupport
import Training

extension BatchDisplay {
    /// The output of ``show(_:_:)`` as JSON, with all ids.
    ///
    /// `batches` holds the micro-batches of the first step, each with its `rows` (examples). An example has its `file` and
    /// `line` (or `element` of a JSON array), counts of `tokens` and `lossTokens`, and its text in `parts`, each with `text`,
    /// `ids` and whether its tokens contribute to the `loss`. If an example has several texts, `part` is `input`, `target`
    /// or `candidate`.
    func json(_ plan: BatchPlan, _ rows: EncodedRows, _ summary: EncodingSummary) -> JSON {
        var plan = plan
        let batches = plan.microBatches(ofStep: 0).map { batch -> JSON in
            .object(["rows": .array(batch.map { json(rows[$0]) })])
        }
        return [
            "batches": .array(batches), "rows": .integer(summary.rows),
            "tokensWithoutLoss": .integer(summary.inputTokens), "tokensWithLoss": .integer(summary.targetTokens),
            "truncated": .integer(summary.truncated), "leftOut": .integer(summary.dropped),
        ]
    }

    private func json(_ row: EncodedExample) -> JSON {
        var fields: [String: JSON] = [
            "tokens": .integer(head == nil ? row.length : row.input.count), "lossTokens": .integer(row.lossCount),
        ]
        if let location = row.location {
            fields["file"] = .string(location.file)
            fields[location.unit.rawValue] = .integer(location.number)
        }
        var parts = runs(row.input, row.input.map { _ in false }).map { part($0, "input") }
        if let head {
            let labels = row.target.filter { $0 >= 0 }.map { index -> JSON in
                head.labels.indices.contains(index) ? .string(head.labels[index]) : .integer(index)
            }
            if let score = row.row.score {
                fields["score"] = .number(score)
            } else {
                fields["labels"] = .array(labels)
            }
            for text in row.row.candidates {
                parts += runs(text, text.map { _ in false }).map { part($0, "candidate") }
            }
        } else if architecture == .decoder {
            // Input and target are decoded as one text.
            let mask = row.input.map { _ in false } + (row.loss ?? row.target.map { _ in true })
            parts = runs(row.input + row.target, mask).map { part($0, nil) }
        } else {
            parts += runs(row.target, row.target.map { _ in true }).map { part($0, "target") }
        }
        fields["parts"] = .array(parts)
        return .object(fields)
    }

    private func part(_ run: Run, _ name: String?) -> JSON {
        var fields: [String: JSON] = [
            "text": .string(run.text), "ids": .array(run.ids.map { .integer($0) }), "loss": .bool(run.hasLoss),
        ]
        if let name { fields["part"] = .string(name) }
        return .object(fields)
    }
}
