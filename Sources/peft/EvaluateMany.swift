import Foundation
import LanguageModels
import PEFT
import Support
import Training

/// Several adapters over one base: each on all rows, or each on the rows that name it.
extension Evaluate {
    func evaluateMany(_ parameters: GenerateParameters) throws {
        guard !merge else {
            throw PEFTError("--merge was given with several adapters", remedy: "evaluate one at a time")
        }
        let named = try NamedAdapters(model, adapter)
        let url = URL(fileURLWithPath: NSString(string: data).expandingTildeInPath)
        if let limit, limit < 1 {
            throw PEFTError("a limit of \(limit) rows was asked for", remedy: "at least 1 has to be")
        }
        let rows = try DataSet.read(url, limit: limit)
        var parts: [(name: String?, rows: [Int])] = []
        if let adapterField {
            let names = try rows.map { try named.adapter(of: $0, field: adapterField) }
            for name in [nil] + named.set.names.map(Optional.some) {
                let own = names.indices.filter { names[$0] == name }
                if !own.isEmpty { parts.append((name, own)) }
            }
        } else {
            parts = named.set.names.map { ($0, Array(rows.indices)) }
        }
        let display = ProgressDisplay(isQuiet: quiet || json)
        var lines = [Int: [String]]()
        var results: [(name: String, rows: Int, result: EvaluationResult)] = []
        var total = Total()
        // Templates, lengths and classes are as for one adapter alone; switching takes no time.
        for (name, own) in parts {
            let record = name.flatMap { named.records[$0] }
            let title = name ?? NamedAdapters.base
            let examples = try templates.rows(record: record).examples(from: own.map { rows[$0] })
            try named.set.activate(name)
            let most = templates.maxInput ?? record?.maxInputTokens ?? TemplateOptions.defaultMaxInput
            let evaluator = Evaluator(
                model: named.model, tokenizer: named.tokenizer, parameters: parameters, batchSize: batchSize,
                maxInputTokens: most)
            let result = try evaluator.evaluate(examples) {
                display.update(share: Double($0) / Double(own.count), "\(title): \($0) of \(own.count) rows")
            }
            let tokens = try RowEncoder(named.tokenizer, for: named.model, maxInputTokens: most)
                .encode(examples).summary.targetTokens
            total.add(examples, result, tokens: tokens)
            results.append((title, own.count, result))
            for ((row, example), output) in zip(zip(own, examples), result.predictions) {
                let line = JSON.object([
                    "adapter": .string(title), "prompt": .string(example.prompt), "target": .string(example.target),
                    "output": .string(output),
                ])
                lines[row, default: []].append(line.text(indent: nil))
            }
        }
        display.finish()
        if adapterField != nil, results.count > 1, named.model.writes || named.model.head.task == .classification {
            results.append(("all rows", rows.count, try total.result(isClassifier: !named.model.writes)))
        }
        if let predictions {
            let text = rows.indices.flatMap { lines[$0] ?? [] }.joined(separator: "\n") + "\n"
            try AtomicFile.write(text, to: URL(fileURLWithPath: predictions))
        }
        if json {
            print(
                JSON.array(
                    results.map { name, rows, result in
                        var fields = jsonFields(result, rows: rows)
                        fields["adapter"] = .string(name)
                        return .object(fields)
                    }
                ).text())
        } else {
            for (name, rows, result) in results {
                print("\(name):")
                printTable(result, rows: rows)
            }
        }
    }

    /// What all rows together come to.
    private struct Total {
        private var predictions: [String] = []
        private var targets: [String] = []
        private var loss = 0.0
        private var tokens = 0
        private var generated = 0
        private var seconds = 0.0

        mutating func add(_ examples: [Example], _ result: EvaluationResult, tokens: Int) {
            predictions += result.predictions
            targets += examples.map(\.target)
            loss += result.loss * Double(tokens)
            self.tokens += tokens
            generated += result.generatedTokens
            seconds += result.seconds
        }

        func result(isClassifier: Bool) throws -> EvaluationResult {
            EvaluationResult(
                metrics: isClassifier
                    ? try evaluateClassification(predictions: predictions, references: targets)
                    : try evaluateGeneration(predictions: predictions, references: targets.map { [$0] }),
                loss: loss / Double(max(1, tokens)), predictions: predictions, generatedTokens: generated,
                seconds: seconds)
        }
    }
}
