import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Training

/// Several adapters over one base model: each on all examples, or on the examples that name it.
extension Evaluate {
    func evaluateMany(_ parameters: GenerateParameters) throws {
        guard !merge else {
            throw UsageError("--merge cannot be used with several adapters", remedy: "evaluate one adapter at a time")
        }
        let named = try NamedAdapters(model, adapter)
        try ModelNotes.generation(parameters, for: named.model)
        try ModelNotes.input(templates.maxInput, for: named.model, named.tokenizer)
        try require("--limit", limit)
        let rows = try DataSet.read(DataSource.all(data), limit: limit, keepsText: true)
        var parts: [(name: String?, rows: [Int])] = []
        if let adapterField {
            let names = try rows.map { try named.adapter(of: $0, field: adapterField) }
            for name in [nil] + named.set.names.map(Optional.some) {
                let matching = names.indices.filter { names[$0] == name }
                if !matching.isEmpty { parts.append((name, matching)) }
            }
        } else {
            parts = named.set.names.map { ($0, Array(rows.indices)) }
        }
        let display = ProgressDisplay(isQuiet: quiet || json)
        var lines = [Int: [String]]()
        var results: [(name: String, rows: Int, result: EvaluationResult)] = []
        var total = Total()
        // Templates, lengths and labels are those of each adapter; switching adapters costs nothing.
        for (name, indices) in parts {
            let record = name.flatMap { named.records[$0] }
            let title = name ?? NamedAdapters.base
            try named.set.activate(name)
            let part = try measure(indices.map { rows[$0] }, named, record, parameters) {
                display.update(
                    share: Double($0) / Double(indices.count),
                    "\(title): \($0) of \(counted(indices.count, "example"))")
            }
            total.add(part)
            results.append((title, indices.count, part.result))
            for ((row, asked), output) in zip(zip(indices, part.asked), part.result.predictions) {
                let line = JSON.object([
                    "adapter": .string(title), "prompt": .string(asked.prompt), "target": .string(asked.target),
                    "output": .string(output),
                ])
                lines[row, default: []].append(line.text(indent: nil))
            }
        }
        display.finish()
        ModelNotes.lastPosition(results.reduce(0) { $0 + $1.result.endedAtLastPosition }, of: named.model)
        if adapterField != nil, results.count > 1, named.model.generates || named.model.head.task == .classification {
            results.append(("all rows", rows.count, try total.result(isClassifier: !named.model.generates)))
        }
        if let predictions {
            let text = rows.indices.flatMap { lines[$0] ?? [] }.joined(separator: "\n") + "\n"
            try Output.write(text, to: predictions)
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

    /// The result of one adapter, its prompts and targets, and the number of tokens that contribute to the loss.
    private struct Part {
        let result: EvaluationResult
        let asked: [(prompt: String, target: String)]
        let tokens: Int
    }

    /// Evaluates the active adapter, on chats if it was trained on chats or the rows hold messages.
    private func measure(
        _ rows: [Row], _ named: NamedAdapters, _ record: TrainingRecord?, _ parameters: GenerateParameters,
        onProgress: (Int) -> Void
    ) throws -> Part {
        let evaluator = Evaluator(
            model: named.model, tokenizer: named.tokenizer, parameters: parameters, batchSize: batchSize)
        let settings = try templates.settings(chat).recognizing(
            data, generates: named.model.generates, record: record
        ).settings
        let prepared = try settings.exampleFormat(of: data, tokenizerFolder: named.tokenizerFolder, record: record)
            .examples(from: rows)
            .prepared(
                named.tokenizer, folder: named.tokenizerFolder, for: named.model,
                maxInputTokens: settings.inputLimit(record))
        return Part(
            result: try prepared.evaluate(with: evaluator, onProgress: onProgress), asked: try prepared.questions(),
            tokens: try prepared.lossTokens())
    }

    /// The sum over all adapters.
    private struct Total {
        private var predictions: [String] = []
        private var prompts: [String] = []
        private var targets: [String] = []
        private var loss = 0.0
        private var tokens = 0
        private var generated = 0
        private var seconds = 0.0

        mutating func add(_ part: Part) {
            predictions += part.result.predictions
            prompts += part.asked.map(\.prompt)
            targets += part.asked.map(\.target)
            loss += part.result.loss * Double(part.tokens)
            tokens += part.tokens
            generated += part.result.generatedTokens
            seconds += part.result.seconds
        }

        func result(isClassifier: Bool) throws -> EvaluationResult {
            EvaluationResult(
                metrics: isClassifier
                    ? try evaluateClassification(predictions: predictions, references: targets)
                    : try evaluateGeneration(
                        predictions: predictions, references: targets.map { [$0] }, prompts: prompts),
                loss: loss / Double(max(1, tokens)), predictions: predictions, generatedTokens: generated,
                seconds: seconds)
        }
    }
}
