import Foundation
import Testing

@testable import Experiments

#if canImport(FoundationXML)
    import FoundationXML
#endif

@Suite struct HTMLReportTests {
    private static let reports = [
        ReportSamples.oneSeed(), ReportSamples.threeSeeds(), ReportSamples.degenerate(), ReportSamples.report([]),
        ReportSamples.requantized(), hostile(),
    ]

    /// Every text field holds markup, quotes, control characters and reversals of direction.
    private static func hostile() -> ComparisonReport {
        let text =
            "<script>alert('x')</script>\"'&amp;]]>\u{0}\u{1B}[2J\u{202E}\u{FFFF}\r\n<img src=x onerror=alert(1)>"
        var report = ReportSamples.oneSeed()
        report.version = text
        report.date = text
        report.model.name = text
        report.data.name = text
        report.data.prompt = text
        report.machine.processor = text
        report.baselines = [
            BaselineResult(label: text, quality: [text: Statistic([0.5]), "rouge1": Statistic([.nan])])
        ]
        report.settings = [text: .string(text), "list": .array([.string(text), .object([text: .null])])]
        for index in report.runs.indices {
            report.runs[index].label = text + "\(index)"
            report.runs[index].quality[text] = Statistic([0.5])
            report.runs[index].configuration = [text: .string(text)]
            report.runs[index].samples = [.init(prompt: text, target: text, output: text)]
        }
        return report
    }

    @Test(arguments: reports) func isWellFormed(_ report: ComparisonReport) {
        let parser = XMLParser(data: Data(report.html().utf8))
        let parsed = parser.parse()
        #expect(parsed, "line \(parser.lineNumber): \(String(describing: parser.parserError))")
    }

    @Test(arguments: reports) func loadsNothingAndNamesNoNumberThatIsNone(_ report: ComparisonReport) throws {
        let page = report.html()
        for scheme in ["http:", "https:", "file:", "url(", "@import", "<link", "<iframe", "<object"] {
            #expect(!page.contains(scheme), "the page holds \(scheme)")
        }
        #expect(page.contains("default-src 'none'"))
        // A run that diverged says so in words; no figure is one of these.
        let words = page.replacingOccurrences(of: "NaN or infinite", with: "").lowercased().split { !$0.isLetter }
        #expect(!words.contains("nan") && !words.contains("inf") && !words.contains("infinity"))
        #expect(!words.contains("nil") && !words.contains("optional"))
    }

    @Test func hostileTextStaysText() {
        let page = Self.hostile().html()
        #expect(page.components(separatedBy: "<script").count == 2)
        #expect(!page.contains("<img"))
        #expect(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"))
        let forbidden: Set<Unicode.Scalar> = ["\u{0}", "\u{1B}", "\u{202E}", "\u{FFFF}"]
        #expect(!page.unicodeScalars.contains(where: forbidden.contains))
    }

    @Test(arguments: reports) func isDeterministic(_ report: ComparisonReport) {
        // The same values in dictionaries of another capacity, which are enumerated in another order.
        var other = report
        for index in other.runs.indices {
            var quality = [String: Statistic](minimumCapacity: 4000)
            for (name, value) in report.runs[index].quality.sorted(by: { $0.key > $1.key }) { quality[name] = value }
            other.runs[index].quality = quality
        }
        #expect(report.html() == other.html())
        #expect(report.table(color: true) == other.table(color: true))
    }

    @Test func theAnswerComesFirst() throws {
        let page = ReportSamples.oneSeed().html()
        let verdict = try #require(page.range(of: "raises ROUGE-1 from 20.0 to 41.0"))
        let figures = try #require(page.range(of: "All results"))
        let charts = try #require(page.range(of: "<figure>"))
        let recipe = try #require(page.range(of: "How to reproduce this"))
        #expect(verdict.lowerBound < figures.lowerBound)
        #expect(figures.lowerBound < charts.lowerBound)
        #expect(charts.lowerBound < recipe.lowerBound)
    }

    @Test func figuresCarryUnitsGroupsAndIntervals() {
        let page = ReportSamples.oneSeed().html()
        for text in [
            "3\u{202F}538\u{202F}944", "1.41\u{202F}%", "[39.5, 42.5]", "2.00\u{202F}GB", "2e-4",
            "12\u{202F}460 training",
            "statistically indistinguishable from the best", "data-value=\"3538944.0\"", "q, v",
        ] {
            #expect(page.contains(text), "\(text) is missing")
        }
        let seeds = ReportSamples.threeSeeds().html()
        #expect(seeds.contains("±\u{202F}0.5"))
        #expect(seeds.contains("standard deviation over 3 seeds"))
        #expect(!seeds.contains("bootstrap"))
    }

    @Test func missingValuesSayWhy() {
        let page = ReportSamples.degenerate().html()
        #expect(page.contains("title=\"not trained\""))
        #expect(page.contains("title=\"not a finite number\""))
        #expect(page.contains("There is nothing to draw."))
        #expect(page.contains("ROUGE-L, as ROUGE-1 has no finite value"))
        #expect(page.contains("title=\"the total is unknown\""))
    }

    @Test func drawingsHaveTextAlternatives() {
        let page = ReportSamples.threeSeeds().html()
        let drawings = page.components(separatedBy: "<svg class=\"chart\"").dropFirst()
        #expect(drawings.count > 8)
        for drawing in drawings {
            let tag = drawing.prefix { $0 != ">" }
            #expect(tag.contains("role=\"img\"") && tag.contains("aria-label=\"") && tag.count > 60)
        }
        #expect(page.contains("LoRA r 32 (all linears): 40.0 ±\u{202F}0.5"))
    }

    @Test func aDivergedSeedIsNamedAndLeftOut() {
        var report = ReportSamples.threeSeeds()
        report.runs[2].curves[1].training[30].loss = .nan
        let page = report.html()
        #expect(page.contains("LoRA r 32 (all linears): the loss was NaN or infinite at some steps"))
    }

    @Test func interpolationEscapesStringsAndKeepsMarkup() {
        let text = "a<b & \"c\"\r\nd"
        let inner: Markup = "<b>\(text)</b>"
        #expect(inner.text == "<b>a&lt;b &amp; &quot;c&quot;\nd</b>")
        let outer: Markup = "<p>\(inner)\(3)\(-0.456)\(2.50)\(Double.nan)\(0.001)</p>"
        #expect(outer.text == "<p>\(inner.text)3-0.462.500</p>")
    }
}
