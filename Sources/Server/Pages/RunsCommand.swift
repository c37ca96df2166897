import ArgumentParser
import Experiments
import Foundation
import PEFTSupport

/// `peft runs`: lists the runs of a folder.
struct RunsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "runs",
        abstract: "List training runs, comparisons, sweeps and soft-prompt maps of a folder.",
        discussion: """
            peft runs experiments
            peft runs experiments --json

            Takes in what peft train, compare, sweep and neighbors left in the folder, and lists it with what was there
            before: runs.sqlite in the folder keeps runs whose files were removed. peft serve --runs shows them as pages.
            """)

    @Argument(help: "Folder with the outputs of runs.") var folder = "."
    @Option(help: "Kind of run: training, comparison, sweep or map.") var kind: String?
    @Flag(help: "Print the list as JSON.") var json = false

    func run() throws {
        var kinds = Set(RunEntry.Kind.allCases)
        if let kind {
            guard
                let one = RunEntry.Kind.allCases.first(where: { $0.rawValue == kind || $0 == .map && kind == "map" })
            else {
                throw ValidationError("unknown kind '\(kind)'; use training, comparison, sweep or map")
            }
            kinds = [one]
        }
        let store = try RunStore(URL(fileURLWithPath: NSString(string: folder).expandingTildeInPath))
        try store.refresh()
        let runs = try store.list().filter { kinds.contains($0.entry.kind) }
        if json {
            try write(
                JSON.array(
                    runs.map { run in
                        [
                            "id": .integer(Int(run.id)), "kind": .string(run.entry.kind.rawValue),
                            "name": .string(run.entry.name), "title": .string(run.entry.title),
                            "state": .string(run.entry.state.rawValue), "result": .string(run.entry.detail),
                            "date": .string(ISO8601DateFormatter().string(from: run.entry.date)),
                        ]
                    }
                ).text())
            return
        }
        guard !runs.isEmpty else { return try write("no runs in \(folder)") }
        let rows = runs.map { run in
            [
                RunsPage.shown(run.entry.date), run.entry.kind.rawValue, run.entry.name, run.entry.state.rawValue,
                run.entry.detail,
            ].map(Self.printable)
        }
        let widths = (0..<4).map { column in rows.map { $0[column].count }.max() ?? 0 }
        let lines = rows.map { row in
            let cells = zip(row, widths).map { $0 + String(repeating: " ", count: $1 - $0.count) }
            return (cells + row.suffix(1)).joined(separator: "  ")
        }
        try write(lines.joined(separator: "\n"))
    }

    /// Writes lines to standard output.
    /// - Throws: ``PEFTError`` if they can't be written.
    private func write(_ text: String) throws {
        guard let failure = StandardStreams.write(text + "\n", to: STDOUT_FILENO) else { return }
        throw PEFTError(
            "can't write the list to standard output: \(StandardStreams.reason(failure))",
            remedy: "check the disk or the program that reads it")
    }

    /// A name without control characters, which a terminal would obey.
    private static func printable(_ text: String) -> String {
        String(
            String.UnicodeScalarView(
                text.unicodeScalars.map { [.control, .format].contains($0.properties.generalCategory) ? "·" : $0 }))
    }
}
