import Testing

@testable import Experiments

/// Columns are declared once; the terminal and the page show them unless the declaration leaves one out.
@Suite struct ReportColumnTests {
    private func report() -> ComparisonReport {
        var report = ReportSamples.requantized()
        report.runs[1].inference = .init(unmerged: 13, merged: 11, largestDifference: 2e-5)
        report.runs[1].retention = .init(text: "news.txt", before: 2, after: Statistic([2.25, 2.25]))
        report.runs[1].loss = Statistic([1.5, 1.7])
        return report
    }

    private func titles(_ columns: [ReportColumn], onlyIn isOnly: (ReportColumn) -> Bool) -> [String] {
        columns.filter(isOnly).map { column in
            let page = column.page.map { [$0.title.replacing("\n", with: " "), $0.unit].filter { !$0.isEmpty } }
            return (page ?? column.terminal?.title ?? []).joined(separator: " ")
        }
    }

    @Test func thePageHasMoreColumnsThanTheTerminal() {
        let columns = report().columns
        #expect(columns.allSatisfy { $0.terminal != nil || $0.page != nil })
        #expect(
            titles(columns) { $0.terminal == nil } == [
                "Loss nats/token", "Steps", "Training time", "ms/token unmerged", "Merge drift largest logit",
            ])
        #expect(titles(columns) { $0.page == nil } == [])
    }

    @Test func theTerminalShowsTheLossWithoutMetrics() {
        var run = MethodRun(method: "lora", label: "LoRA")
        let withoutAny = ReportSamples.report([run]).columns
        #expect(titles(withoutAny) { $0.page == nil } == ["Loss"])
        run.loss = Statistic([1.5])
        let columns = ReportSamples.report([run]).columns
        #expect(columns.first?.terminal?.title == ["Loss"] && columns.first?.page?.title == "Loss")
    }

    @Test func bothShowTheSameNumbersUnlessDeclaredOtherwise() {
        let report = report()
        let table = report.table(color: false, width: 300)
        let page = report.html()
        #expect(table.contains("3,538,944") && page.contains("3\u{202F}538\u{202F}944"))
        #expect(table.contains("1.02 GB") && page.contains("1.02\u{202F}GB"))
        // Forgetting has three places on the page; the terminal has two, and both times of inference in one column.
        #expect(table.contains("+0.25") && page.contains("+0.250"))
        #expect(table.contains("11.0/13.0") && !page.contains("11.0/13.0"))
    }
}
