import Testing

@testable import Experiments

@Suite struct ComparisonTableTests {
    private func lines(_ table: String) -> [String] {
        table.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
    }

    @Test func columnsAlign() throws {
        let lines = lines(ReportSamples.oneSeed().table(color: false))
        let rule = try #require(lines.firstIndex { $0.hasPrefix("──") })
        let rows = lines[(rule + 1)...].prefix { !$0.isEmpty }
        #expect(rows.count == 3)
        #expect(lines[rule].count <= 120)
        #expect(lines.allSatisfy { $0.count <= 120 && !$0.hasSuffix(" ") })
        // Right-aligned: every row ends where its heading ends.
        let ends = rows.map(\.count)
        #expect(Set(ends).count == 1 || ends.max() == lines[rule].count)
        for title in ["ROUGE-1", "parameters", "share"] {
            let heading = try #require(lines[rule - 1].range(of: title))
            let end = lines[rule - 1].distance(from: lines[rule - 1].startIndex, to: heading.upperBound)
            for row in rows {
                let characters = Array(row)
                #expect(characters[end - 1] != " ")
                #expect(end == characters.count || characters[end] == " ")
            }
        }
    }

    @Test func figuresAreWrittenForPeople() {
        let table = ReportSamples.oneSeed().table(color: false)
        for text in [
            "3,538,944", "1.41 %", "41.0 ±1.5", "2e-4", "2.00 GB", "14.2 MB", "11.0/13.0", "251,000,000", "100 %",
        ] {
            #expect(table.contains(text), "\(text) is missing")
        }
        #expect(table.contains("± is half the width of the interval."))
    }

    @Test func theBestIsGreenOnlyWithColor() {
        let report = ReportSamples.oneSeed()
        #expect(!report.table(color: false).contains("\u{1B}"))
        let colored = report.table(color: true)
        #expect(colored.contains("\u{1B}[1;32m42.0 ±1.5\u{1B}[0m"))
        let plain = colored.replacing("\u{1B}[1;32m", with: "").replacing("\u{1B}[0m", with: "")
        #expect(plain == report.table(color: false))
    }

    @Test func labelsWrapAndThenColumnsLeave() throws {
        var report = ReportSamples.threeSeeds()
        report.runs[2].label = "LoRA r 32 on all linear layers with rank-stabilized scaling and dropout 0.05"
        for width in [120, 100, 80, 60] {
            let lines = lines(report.table(color: false, width: width))
            #expect(lines.allSatisfy { $0.count <= width }, "a line is wider than \(width)")
            #expect(lines.contains { $0.contains("ROUGE-1") })
        }
        let narrow = report.table(color: false, width: 60)
        #expect(narrow.contains("columns did not fit"))
        #expect(lines(narrow).contains { $0.hasPrefix("  linear") })
    }

    @Test func missingValuesAreDashes() {
        let table = ReportSamples.degenerate().table(color: true)
        #expect(!table.lowercased().contains("nan"))
        #expect(!table.contains("inf"))
        #expect(table.contains("–"))
        #expect(table.contains("means not measured"))
        #expect(ReportSamples.report([]).table(color: true).contains("This report has no methods."))
    }

    @Test func aLabelCannotSteerTheTerminal() {
        var report = ReportSamples.oneSeed()
        report.runs[2].label = "LoRA\u{1B}[2J\u{7}\n\u{202E}x"
        let table = report.table(color: false)
        #expect(!table.unicodeScalars.contains { $0 == "\u{1B}" || $0 == "\u{7}" || $0 == "\u{202E}" })
    }
}
