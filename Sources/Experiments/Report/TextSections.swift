import Foundation
import PEFTSupport

/// Sample outputs, and how to reproduce the comparison.
extension ReportBuilder {
    // MARK: - Samples

    private struct Row {
        var prompt: String
        var target: String
        var outputs: [(run: ReportedRun, style: SeriesStyle, text: String)]
    }

    /// Samples of all runs, brought together by test row.
    private func sampleRows() -> [Row] {
        var rows: [Row] = []
        var places: [[String]: Int] = [:]
        let shown = Set(notable)
        for (index, entry) in entries.enumerated() where shown.contains(index) {
            let (run, style) = entry
            for sample in run.samples {
                let key = [sample.prompt, sample.target]
                let place = places[key] ?? rows.count
                if place == rows.count {
                    places[key] = place
                    rows.append(Row(prompt: sample.prompt, target: sample.target, outputs: []))
                }
                rows[place].outputs.append((run, style, sample.output))
            }
        }
        return rows
    }

    func samples() -> Markup {
        let rows = sampleRows()
        guard !rows.isEmpty else { return "" }
        let articles: [Markup] = rows.enumerated().map { index, row in
            let outputs: [Markup] = row.outputs.map { output in
                """
                <div class="output \(output.style.cssClass)"><h4>\(output.run.label)</h4>\(text(output.text))</div>
                """
            }
            return """
                <article class="sample">
                <h3>Test example \(index + 1)</h3>
                <details><summary>Prompt: \(summary(row.prompt))</summary><div class="prompt">\(text(row.prompt))</div></details>
                <div class="outputs">
                <div class="output target"><h4>Target</h4>\(text(row.target))</div>
                \(outputs.joined("\n"))
                </div>
                </article>
                """
        }
        return """
            <section aria-labelledby="samples">
            <h2 id="samples">Sample outputs</h2>
            <p class="note">Outputs of the first seed, unedited. A few examples show style and typical mistakes; they say nothing about averages.</p>
            \(articles.joined("\n"))
            </section>
            """
    }

    private func text(_ text: String) -> Markup {
        let isEmpty = text.allSatisfy(\.isWhitespace)
        return isEmpty ? "<p class=\"text none\"><em>empty</em></p>" : "<p class=\"text\" dir=\"auto\">\(text)</p>"
    }

    private func summary(_ text: String) -> String {
        let words = text.split(whereSeparator: \.isWhitespace).prefix(14)
        var out = ""
        for word in words where out.count + word.count < 70 { out += (out.isEmpty ? "" : " ") + word }
        return out.isEmpty ? String(text.prefix(60)) + "…" : out + "…"
    }

    // MARK: - How to reproduce

    func recipe() -> Markup {
        let (model, data, machine) = (report.model, report.data, report.machine)
        let rows = [
            "\(numbers.integer(data.trainingRows)) training", "\(numbers.integer(data.validationRows)) validation",
            "\(numbers.integer(data.testRows)) test",
        ]
        let seeds = Set(report.runs.flatMap { $0.curves.map(\.seed) }).sorted().map(String.init)
        let facts: [(String, Markup)] = [
            (
                "Model",
                "\(model.name) (\(model.family)), \(numbers.integer(model.parameters)) parameters, \(numbers.bytes(model.bytes))"
            ),
            ("Data", "\(data.name): \(rows.joined(separator: ", ")) examples"),
            ("Prompt", "<code dir=\"auto\">\(data.prompt)</code>"),
            ("Target", "<code dir=\"auto\">\(data.target)</code>"),
            (
                "Machine",
                "\(machine.processor), \(machine.threads) \(machine.threads == 1 ? "thread" : "threads"), \(numbers.bytes(machine.memoryBytes)), \(machine.system)"
            ),
            ("Seeds", seeds.isEmpty ? missing("no training curve was recorded") : "\(seeds.joined(separator: ", "))"),
            ("Ranked by", "\(rankingName)"),
            ("Date", "\(report.date)"),
            ("Version", "swift-peft \(report.version)"),
        ]
        let recipes: [Markup] = entries.filter { !$0.run.configuration.isEmpty }.map { run, style in
            """
            <div><h3>\(style.swatch) \(run.label)</h3>\(list(settings(run.configuration)))</div>
            """
        }
        let methods: Markup =
            recipes.isEmpty
            ? ""
            : "<h3>Methods</h3>\n<div class=\"recipes\">\(recipes.joined("\n"))</div>\n"
        let common: Markup =
            report.settings.isEmpty
            ? "" : "<h3>Settings common to all runs</h3>\n\(list(settings(report.settings)))\n"
        return """
            <section aria-labelledby="repeat">
            <h2 id="repeat">How to reproduce this</h2>
            \(list(facts))
            \(common)\(methods)</section>
            <footer>Written by swift-peft \(report.version) on \(String(report.date.prefix(10))). The page is self-contained and loads nothing.</footer>
            """
    }

    private var rankingName: String {
        let wanted = Metric(key: report.primaryMetric)
        guard let ranking, ranking != wanted else { return wanted.name }
        return "\(ranking.name), as \(wanted.name) has no finite value"
    }

    private func list(_ facts: [(String, Markup)]) -> Markup {
        let items: [Markup] = facts.map { "<dt>\($0.0)</dt><dd>\($0.1)</dd>" }
        return "<dl class=\"facts\">\(items.joined("\n"))</dl>"
    }

    private func settings(_ values: [String: JSON]) -> [(String, Markup)] {
        values.sorted { $0.key < $1.key }.map { ($0.key, "<code dir=\"auto\">\(plain($0.value))</code>") }
    }

    private func plain(_ value: JSON) -> String {
        switch value {
        case .string(let text): text
        case .array(let values) where values.allSatisfy { $0.string != nil }:
            values.compactMap(\.string).joined(separator: ", ")
        case .null: NumberFormat.missing
        // Small rates read better the way people type them.
        case .number(let number) where number > 0 && number < 0.01: numbers.rate(number)
        default: value.text(indent: nil)
        }
    }
}
