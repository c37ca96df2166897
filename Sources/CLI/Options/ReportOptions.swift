import ArgumentParser
import Foundation

/// Options of the commands whose result is a report.
struct ReportOptions: ParsableArguments {
    @Option(help: ArgumentHelp("Write the report as an HTML page.", valueName: "file")) var html: String?
    @Option(help: ArgumentHelp("Write the report as JSON.", valueName: "file")) var output: String?
    @Flag(help: "Print the report as JSON.") var json = false

    /// Prints a report and writes the files that the options name. It prints first: writing may fail.
    func present(
        table: @autoclosure () -> String, json report: @autoclosure () throws -> Data,
        html page: @autoclosure () -> String
    ) throws {
        print(json ? String(decoding: try report(), as: UTF8.self) : table())
        if let output { try Output.write(report(), to: output) }
        guard let html else { return }
        try Output.write(page(), to: html)
        if !json { print("report: \(html)") }
    }
}
