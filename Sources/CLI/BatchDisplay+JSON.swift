import LanguageModels
import Support
import Training

extension BatchDisplay {
    /// What ``show(_:_:)`` prints, with all ids, as JSON.
    ///
    /// `batches` holds the micro-batches of the first step, each with its `rows`. A row has its `file` and `line` (or
    /// `element` of a JSON array), counts of `tokens` and `lossTokens`, and its text in `parts`, each with `text`, `ids` and
    /// whether these tokens have `loss`; where a row is several texts, `part` says whether it is of the `input`, the
    /// `target` or a `candidate`.
    func json(_ plan: BatchPlan, _ rows: EncodedRows, _ summary: EncodingSummary) -> JSON {
        var plan = plan
        let batches = plan.passes(ofStep: 0).map { batch -> JSON in
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
            // One text: that of the target depends on what is before it.
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
