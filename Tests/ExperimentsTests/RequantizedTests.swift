import Testing

@testable import Experiments

/// Rows that hold another row's model, merged and stored in few bits.
@Suite struct RequantizedTests {
    private let report = ReportSamples.requantized()
    private let rouge = Metric(key: "rouge1")

    /// What was not trained is neither recommended nor counted as an adapter.
    @Test func verdictsSpeakOfTrainedRows() throws {
        #expect(report.subject?.label == "LoRA r 16 (all linears)")
        #expect(report.base?.label == "base" && report.seedCount == 2)
        let entries = try #require(TradeOffs(report)).entries
        #expect(entries.map(\.run.id) == [1, 4, 6])
        let verdict = Verdict(report, numbers: .terminal)
        #expect(verdict.choice?.contains("→") == false)
        #expect(verdict.rivals?.contains("→") != true)
        #expect(verdict.sentences.contains { $0.contains("the best of 3 adapters") })
    }

    @Test func shippingNamesTheBestQuantizedModel() throws {
        let sentences = Verdict(report, numbers: .terminal).shipping
        #expect(
            sentences.first?.hasPrefix(
                "Of the 4 quantized models with merged adapters, LoRA r 16 → nf4 is best: ROUGE-1 41.0 in 140 MB; "
                    + "the change from quantization is not statistically significant (-1.0 [") == true, "\(sentences)"
        )
        #expect(
            sentences.contains(
                "QA-LoRA r 16 g 32 over int4-g32 merges into the zero points of its base without loss: ROUGE-1 35.0 unmerged and merged."
            ), "\(sentences)")
    }

    /// A run and its quantized model share seeds: their differences vary less than the runs do.
    @Test func seedsArePairs() throws {
        let stored = try #require(report.quantizationChange(report.reportedRuns[3], by: rouge))
        // −3 and −1 points, pooled with the constant differences of the other rows: the larger variance counts, 4 degrees of
        // freedom of all.
        #expect(abs(stored.value + 0.02) < 1e-12)
        #expect(abs((stored.high - stored.low) / 2 - 2.776 * (0.0002 / 2).squareRoot()) < 1e-6)
        let steady = try #require(report.quantizationChange(report.reportedRuns[2], by: rouge))
        // Its own differences are equal, so the pooled variance counts: 0.0002 / 4.
        #expect(abs((steady.high - steady.low) / 2 - 2.776 * (0.00005 / 2).squareRoot()) < 1e-6)
        #expect(report.quantizationChange(report.reportedRuns[1], by: rouge) == nil)
        // Other rows' seeds stay apart.
        let other = try #require(report.difference(of: report.reportedRuns[4], to: report.reportedRuns[1], by: rouge))
        #expect(other.high - other.low > 0.1)
    }

    @Test func tablesShowBytesAndTheChange() {
        let table = report.table(color: false, width: 200)
        let header = table.split(separator: "\n").prefix(2).joined(separator: "\n")
        #expect(header.contains("model") && header.contains("quantized") && header.contains("Δ ROUGE-1"))
        let row = table.split(separator: "\n").first { $0.contains("→ int4-g32-gptq") } ?? ""
        #expect(row.contains("-2.0 [") && row.contains("150 MB"), "\(row)")
        let page = report.html()
        #expect(
            page.contains(">Model <small>size</small>") && page.contains(">Quantization <small>Δ ROUGE-1</small>")
                && page.contains("a quantized copy of another method's model".replacing("'", with: "&#39;")))
        let other = ReportSamples.threeSeeds().table(color: false, width: 200).split(separator: "\n")
        #expect(!other.prefix(2).contains { $0.contains("model") || $0.contains("quantized") })
        #expect(!ReportSamples.threeSeeds().html().contains(">Quantization <small>"))
    }

    @Test func shortNamesKeepHowWeightsAreStored() {
        #expect(
            report.shortLabels == [
                "base", "LoRA r 16", "LoRA r 16 → nf4", "LoRA r 16 → int4-g32-gptq", "QLoRA r 16", "QLoRA r 16 → nf4",
                "QA-LoRA r 16 g 32 over int4-g32", "QA-LoRA r 16 g 32 over int4-g32 → merged",
            ])
    }
}
