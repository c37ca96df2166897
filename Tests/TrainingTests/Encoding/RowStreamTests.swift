import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing

@testable import Training

/// Rows that are encoded as they are read are those that are read first.
@Suite struct RowStreamTests {
    private func encoder(limit: Int = 20) throws -> RowEncoder {
        let folder = try ModelFolder(ModelLocator.folder(ModelLocator.embedded))
        return try RowEncoder(Tokenizer.load(folder: folder.url), for: folder.outline(), maxInputTokens: limit)
    }

    private func templates(_ prompt: String, _ target: String) throws -> RowTemplates {
        RowTemplates(prompt: try Template(prompt), target: try Template(target))
    }

    /// More lines than one part holds, some of them blank, some too long for the limit.
    private let lines = (0..<6000).map { row in
        row % 700 == 3
            ? "  "
            : #"{"q": "row \#(row) \#(String(repeating: "asks this ", count: row % 13))", "a": "answer \#(row * 7)"}"#
    }

    @Test(arguments: ["\n", "\r\n"], [nil, 1, 2500, 100_000]) func sameAsReadFirst(end: String, limit: Int?) throws {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        try withTemporaryFile("rows.jsonl", lines.joined(separator: end)) { file in
            #expect(encoder.streams(file))
            let expected = try encoder.encode(templates.examples(from: DataSet.read(file, limit: limit)))
            let streamed = try encoder.encode(file, templates, limit: limit)
            #expect(streamed.rows.count == expected.examples.count)
            #expect(
                zip(streamed.rows, expected.examples).allSatisfy { $0.input == $1.input && $0.target == $1.target })
            #expect(streamed.rows.lengths == expected.examples.map(\.length))
            #expect(streamed.rows.allSatisfy { $0.loss == nil })
            #expect(streamed.summary.truncated == expected.summary.truncated)
            #expect(limit == 1 || streamed.summary.truncated > 0)
            #expect(streamed.summary.inputTokens == expected.summary.inputTokens)
            #expect(streamed.summary.targetTokens == expected.summary.targetTokens)
            #expect(streamed.summary.longestTarget == expected.summary.longestTarget)
        }
    }

    /// Many parts, which cores finish in any order.
    @Test(arguments: [1, 400, 3000]) func rowsKeepTheirOrder(partBytes: Int) throws {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        let lines = lines.prefix(partBytes == 1 ? 300 : 2000)
        try withTemporaryFile("rows.jsonl", lines.joined(separator: "\n")) { file in
            let expected = try encoder.encode(templates.examples(from: DataSet.read(file))).examples
            let streamed = try encoder.encode([DataSource(file)], templates, limit: nil, partBytes: partBytes).rows
            #expect(streamed.count == expected.count)
            #expect(zip(streamed, expected).allSatisfy { $0.input == $1.input && $0.target == $1.target })
        }
    }

    /// However the lines are cut into parts, the first of several errors is reported, also where the last can't be read.
    /// Whether the first is found while a row is read or when it is rendered, which comes later.
    @Test(arguments: [1, 300, 1 << 18], ["{", #"{"q": "x"}"#]) func theFirstErrorCounts(partBytes: Int, bad: String)
        throws
    {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        var lines = Array(lines.prefix(200))
        lines[150] = bad
        lines[170] = "[]"
        try withTemporaryFile("rows.jsonl", "") { file in
            try (Data(lines.joined(separator: "\n").utf8) + Data([0x0A, 0xFF, 0x0A])).write(to: file)
            let error = #expect(throws: PEFTError.self) {
                try encoder.encode([DataSource(file)], templates, limit: nil, partBytes: partBytes)
            }
            #expect(error?.description.contains("line 151 ") == true)
        }
    }

    @Test func linesOfText() throws {
        let (encoder, templates) = (try encoder(), try templates("", "{text}"))
        try withTemporaryFile("rows.txt", "one line\n\nand \"another\" {one}\n") { file in
            let expected = try encoder.encode(templates.examples(from: DataSet.read(file)))
            let streamed = try encoder.encode(file, templates)
            #expect(streamed.rows.map(\.target) == expected.examples.map(\.target))
            #expect(streamed.rows.count == 2)
        }
    }

    /// The first of several errors is the one that is reported, as if the file had been read line by line.
    @Test(arguments: [
        [4000: "{", 5000: "[]"], [2: #"{"q": "x"}"#, 5999: "{"], [5998: #"{"q": "x", "a": " "}"#], [17: "\u{1}"],
    ]) func errorsNameTheFirstLine(bad: [Int: String]) throws {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        var lines = lines
        for (line, text) in bad { lines[line] = text }
        try withTemporaryFile("rows.jsonl", lines.joined(separator: "\n")) { file in
            let expected = #expect(throws: PEFTError.self) {
                try encoder.encode(templates.examples(from: DataSet.read(file)))
            }
            let error = #expect(throws: PEFTError.self) { try encoder.encode(file, templates) }
            let first = try #require(bad.keys.min())
            #expect(error?.description.contains("line \(first + 1)") == true)
            // Reading everything first finds what isn't JSON before what a template misses.
            if bad.count == 1 { #expect(error?.description == expected?.description) }
        }
    }

    @Test func whatIsNotTextIsRefusedAfterTheRowsBefore() throws {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        try withTemporaryFile("rows.jsonl", "") { file in
            #expect(throws: PEFTError.self) { try encoder.encode(file, templates) }
            try (Data(lines[0].utf8) + Data([0x0A, 0xFF, 0x0A])).write(to: file)
            let error = #expect(throws: PEFTError.self) { try encoder.encode(file, templates) }
            #expect(error?.description.contains("line 2 is not UTF-8") == true)
            #expect(throws: PEFTError.self) { try encoder.encode(file, templates, limit: 0) }
            let missing = file.deletingLastPathComponent().appendingPathComponent("none.jsonl")
            #expect(throws: PEFTError.self) { try encoder.encode(missing, templates) }
        }
    }

    /// Several sources, of which one is compressed where that can be, are their rows one after another.
    @Test func severalSources() throws {
        let (encoder, templates) = (try encoder(), try templates("{q}", "{a}"))
        try withTemporaryFile("b.jsonl", lines.prefix(1500).joined(separator: "\n")) { file in
            let folder = file.deletingLastPathComponent()
            try Data(lines.suffix(900).joined(separator: "\r\n").utf8).write(
                to: folder.appendingPathComponent("a.json"))
            var names = ["b.jsonl", "a.json"]
            if let gzip = ProgramOutput.find("gzip") {
                let process = Process()
                (process.executableURL, process.arguments) = (gzip, ["-k", file.path])
                try process.run()
                process.waitUntilExit()
                names.append("b.jsonl.gz")
            }
            let sources = names.map { DataSource(folder.appendingPathComponent($0)) }
            #expect(try encoder.streams(sources))
            for limit in [nil, 1000, 2000, 3000] {
                let expected = try encoder.encode(templates.examples(from: DataSet.read(sources, limit: limit)))
                    .examples
                let streamed = try encoder.encode(sources, templates, limit: limit).rows
                #expect(streamed.count == expected.count)
                #expect(zip(streamed, expected).allSatisfy { $0.input == $1.input && $0.target == $1.target })
                #expect(streamed.map(\.location) == expected.map(\.location))
            }
            try Data("\n{\"q\": 1}".utf8).write(to: folder.appendingPathComponent("c.jsonl"))
            let error = #expect(throws: PEFTError.self) {
                try encoder.encode(sources + [DataSource(folder.appendingPathComponent("c.jsonl"))], templates)
            }
            #expect(error?.description.contains("c.jsonl line 2 ") == true)
        }
    }

    /// What isn't one row to a line is read first.
    @Test func documentsAndTablesDoNotStream() throws {
        let encoder = try encoder()
        for (name, text) in [("a.json", "[{\"q\": 1}]"), ("a.jsonl", "[\n{\"q\": 1}]"), ("a.csv", "q\n1")] {
            try withTemporaryFile(name, text) { #expect(!encoder.streams($0)) }
        }
        try withTemporaryFile("a.json", "{\"q\": 1}\n{\"q\": 2}") { #expect(encoder.streams($0)) }
    }
}
