import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Experiments
@testable import Training

#if canImport(FoundationXML)
    import FoundationXML
#endif

/// Runs found in a folder, and their pages.
@Suite struct RunPageTests {
    private static let hostile = "<script>alert('x')</script>\"'&amp;]]>\u{0}\u{1B}[2J\u{202E}\r\n<b>"

    private func row(_ step: Int, loss: Double? = nil, validation: Double? = nil) throws -> RunMetrics.Row {
        let fields: [String: JSON] = [
            "step": .integer(step), "time": .number(1_700_000_000 + Double(step)),
            "loss": loss.map { .number($0) } ?? .null, "validationLoss": validation.map { .number($0) } ?? .null,
            "learningRate": loss == nil ? .null : 1e-3, "gradientNorm": loss == nil ? .null : 0.25,
            "tokensPerSecond": loss == nil ? .null : 100, "memory": loss == nil ? .null : 1e9,
        ]
        return try JSONDecoder().decode(RunMetrics.Row.self, from: Data(JSON.object(fields).text().utf8))
    }

    private func run(
        _ text: String = "LoRA r 8", steps: Int = 100, state: RunDescription.State = .running
    ) throws -> TrainingRun {
        var description = RunDescription(
            model: text, method: text, data: text, trainingExamples: 6, validationExamples: 2, trainable: 10,
            total: 100, totalSteps: 200)
        description.state = state
        if state == .failed { description.message = text }
        var rows = try (0..<steps).map { try row($0 + 1, loss: 3 / Double($0 + 1)) }
        if steps > 1 { rows.append(try row(steps, validation: 1.5)) }
        let samples = (0..<3).map { index in
            ValidationSamples.Snapshot(
                step: 10 * (index + 1), time: 0,
                samples: [.init(prompt: text, target: text, output: index < 2 ? "same" : text)])
        }
        return TrainingRun(name: text, description: description, rows: rows, samples: samples)
    }

    private func expectWellFormed(_ page: String) {
        let parser = XMLParser(data: Data(page.utf8))
        let parsed = parser.parse()
        #expect(parsed, "line \(parser.lineNumber): \(String(describing: parser.parserError))")
        for scheme in ["http:", "https:", "url(", "@import", "<link", "<iframe"] {
            #expect(!page.contains(scheme), "the page holds \(scheme)")
        }
    }

    @Test(arguments: [RunDescription.State.running, .finished, .interrupted, .failed])
    func trainingPagesAreWellFormedAndEscaped(_ state: RunDescription.State) throws {
        let links = Navigation.markup([("/runs", "Runs")], current: nil)
        for steps in [0, 1, 2, 100, 3000] {
            let page = TrainingRunPage(try run(Self.hostile, steps: steps, state: state)).html(
                navigation: links, liveAddress: "/runs/1/live")
            expectWellFormed(page)
            #expect(!page.contains("alert('x')") && !page.contains("<b>"))
            #expect(page.components(separatedBy: "<script").count == 2)
            #expect(page.contains("connect-src 'self'"))
        }
    }

    @Test func aTrainingPageTellsProgressFiguresAndSamples() throws {
        let page = TrainingRunPage(try run()).html(navigation: .empty, liveAddress: "/runs/1/live")
        #expect(page.contains("step 100 of 200, about 1\u{202F}min 40\u{202F}s left"))
        #expect(page.contains("max=\"200\" value=\"100\""))
        #expect(page.components(separatedBy: "<figure>").count == 6)
        // Two equal outputs in a row are one entry.
        #expect(page.contains("Earlier outputs (1)") && page.contains("Step 10–20"))
        let finished = TrainingRunPage(try run(state: .finished)).content.text
        #expect(finished.contains("data-state=\"finished\"") && !finished.contains("left<"))
    }

    /// A run is listed once, whether its records lie beside its checkpoints or in its output.
    @Test func recordsHaveTheNameOfTheOutput() {
        for (path, name) in [
            ("mail/runs/run.json", "mail"), ("a/mail.checkpoint/runs/run.json", "a/mail"),
            ("logs/x/run.json", "logs/x"),
            ("runs/run.json", "runs"), ("run.json", "runs"),
        ] {
            #expect(RunFinder.name(ofRecords: path) == name)
        }
    }

    @Test func runsAreFoundAndKept() throws {
        try withTemporaryFolder { folder in
            let description = RunDescription(
                model: "m", method: "LoRA", data: "d.jsonl", trainingExamples: 6, validationExamples: 2, trainable: 1,
                total: 2, totalSteps: 4)
            let records = folder.appendingPathComponent("mail.checkpoint/runs")
            let log = try RunLog(records, description)
            try log.record(
                .step(
                    .init(
                        step: 1, totalSteps: 4, epoch: 0.5, loss: 2, learningRate: 1e-3, gradientNorm: 1,
                        tokensPerSecond: 5, memory: nil, secondsLeft: 3)))
            try ReportSamples.threeSeeds().json().write(to: folder.appendingPathComponent("methods.json"))
            try Data("{\"a\": 1}".utf8).write(to: folder.appendingPathComponent("other.json"))
            try Data("{".utf8).write(to: folder.appendingPathComponent("damaged.json"))
            let link = folder.appendingPathComponent("circle")
            try FileManager.default.createSymbolicLink(at: link, withDestinationURL: folder)
            let finder = RunFinder(folder)
            let files = finder.files()
            #expect(
                files.map(\.path) == ["damaged.json", "mail.checkpoint/runs/run.json", "methods.json", "other.json"])
            let entries = try files.compactMap { try finder.entry($0) }
            #expect(entries.map(\.name) == ["mail", "methods.json"])
            #expect(entries.map(\.kind) == [.training, .comparison])
            #expect(entries[0].detail.hasPrefix("step 1 of 4, loss 2.000") && entries[0].state == .running)
            #expect(entries[1].detail.contains("best: "))
            expectWellFormed(
                entries[1].reportPage(navigation: Navigation.markup([("/", "Home")], current: "/")) ?? "")
            // What is kept tells the same as the files.
            #expect(entries[0].training?.rows == finder.training(named: "mail")?.rows)
            #expect(finder.training(named: "../mail") == nil && finder.training(named: "none") == nil)
            // A further step changes the stamp.
            try log.record(.validation(step: 1, loss: 1, isBest: true))
            #expect(finder.files()[1].stamp != files[1].stamp && finder.files()[2].stamp == files[2].stamp)
            let items = entries.map { RunsPage.Item(address: "/runs/1", entry: $0) }
            expectWellFormed(RunsPage(items, folder: Self.hostile).html(navigation: .empty))
            expectWellFormed(RunsPage([], folder: "f").html(navigation: .empty))
        }
    }

    @Test func longRunsAreThinned() throws {
        let run = try run(steps: 5000)
        let kept = run.thinned
        #expect(kept.rows.count == 2001 && kept.steps.first?.step == 1 && kept.steps.last?.step == 5000)
        #expect(kept.validations.count == 1)
    }
}
