import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

@Suite struct DataSetTests {
    @Test func readsJSONLines() throws {
        let text = "{\"x\": \"é\\n\", \"n\": 1.0}\r\n\n  \n{\"x\": null, \"o\": {\"k\": [1, true]}}"
        let rows = try read("a.jsonl", text)
        #expect(
            rows.map(\.fields) == [
                ["x": "é\n", "n": .number(1)], ["x": nil, "o": ["k": [1, true]]],
            ])
        #expect(rows.map(\.location.number) == [1, 4])
        #expect(rows[1].location.description.hasSuffix("a.jsonl line 4"))
    }

    @Test func byteOrderMarkIsDropped() throws {
        #expect(try read("a.ndjson", "\u{FEFF}{\"x\": 1}\n")[0]["x"] == 1)
        #expect(try read("a.json", "\u{FEFF}[{\"x\": 1}]")[0]["x"] == 1)
        #expect(try read("a.csv", "\u{FEFF}x,y\n1,2")[0]["x"] == "1")
        #expect(try read("a.csv", "\u{FEFF}\"x\",y\n1,2")[0]["x"] == "1")
    }

    @Test func readsJSONArrays() throws {
        let rows = try read("a.json", "\n [\n {\"x\": 1},\n {\"x\": 2} ]\n")
        #expect(rows.map { $0["x"] } == [1, 2])
        #expect(rows[1].location.description.hasSuffix("a.json element 2"))
        #expect(try read("a.json", "{\"x\": 1}\n{\"x\": 2}\n").map(\.location.number) == [1, 2])
        #expect(try read("a.json", "[{\"x\": 1}, {\"x\": 2}, broken", limit: 2).count == 2)
    }

    @Test func limitStopsReading() throws {
        #expect(try read("a.jsonl", "{\"x\": 1}\nbroken", limit: 1).count == 1)
        #expect(try read("a.csv", "x\n1\n2\n3", limit: 2).count == 2)
        #expect(
            message { _ = try read("a.jsonl", "{}", limit: 0) }.hasPrefix("the row limit must be at least 1 (got 0)"))
    }

    @Test func linesAcrossChunks() throws {
        let lines = (0..<40).map { String(repeating: "ä", count: $0 * 3 % 17) }
        for ending in ["\n", "\r\n"] {
            try withTemporaryFile("a.txt", (["\u{FEFF}"] + [lines.joined(separator: ending)]).joined().utf8) { url in
                for size in [1, 2, 7, 64, 4096] {
                    var reader = try LineReader(url, chunkSize: size)
                    var found: [String] = []
                    while let line = try reader.next() {
                        found.append(String(decoding: line.text, as: UTF8.self))
                        #expect(line.number == found.count)
                    }
                    #expect(found == lines)
                }
            }
        }
    }

    @Test(arguments: [
        ("{\"a\": }", "line 2 is not valid JSON: expected a value, found '}' (column 7)"),
        ("{\"a\": 1", "line 2 is not valid JSON: expected ',' or '}' after a value, found the end (column 8)"),
        ("{\"é\": \"x", "line 2 is not valid JSON: unterminated string (column 7)"),
        ("{'a': 1}", "line 2 is not valid JSON: expected a field name in double quotes, found ''' (column 2)"),
        ("{\"a\": 'x'}", "line 2 is not valid JSON: strings need double quotes, found ' (column 7)"),
        ("{\"a\" 1}", "line 2 is not valid JSON: expected ':' after a field name, found '1' (column 6)"),
        ("{\"a\": NaN}", "line 2 is not valid JSON: NaN is not JSON (column 7)"),
        ("{\"a\": 01}", "line 2 is not valid JSON: expected ',' or '}' after a value, found '1' (column 8)"),
        ("{\"a\": 1e999}", "line 2 is not valid JSON: the number 1e999 is too large (column 7)"),
        ("{} {}", "line 2 is not valid JSON: unexpected '{' after the end of the value (column 4)"),
        ("{\"a\": \"\\ud800\"}", "line 2 is not valid JSON: unpaired surrogate (column 8)"),
        ("{\"a\": \"\\x\"}", "line 2 is not valid JSON: unknown escape in a string (column 8)"),
        ("{\"a\": [1,]}", "line 2 is not valid JSON: expected a value, found ']' (column 10)"),
        ("[1]", "line 2 is an array; each row must be"),
        ("\"text\"", "line 2 is a string; each row must be"),
        ("null", "line 2 is null; each row must be"),
    ])
    func brokenLinesSayWhatIsWrong(line: String, expected: String) {
        let error = message { _ = try read("a.jsonl", "{\"a\": 1}\n\(line)\n") }
        #expect(error.hasPrefix("a.jsonl \(expected)"), "\(error)")
    }

    @Test func brokenArraysSayWhere() {
        #expect(
            message { _ = try read("a.json", "[{\"x\": 1},\n{\"x\" 2}]") }
                .hasPrefix("a.json line 2 is not valid JSON: expected ':' after a field name, found '2' (column 6)"))
        #expect(message { _ = try read("a.json", "[{}, 3]") }.hasPrefix("a.json element 2 is a number"))
        #expect(message { _ = try read("a.json", "[{}") }.hasPrefix("a.json line 1 is not valid JSON"))
    }

    @Test(arguments: ["a.jsonl", "a.ndjson", "a.json", "a.csv", "a.tsv"])
    func emptyFilesAreErrors(name: String) {
        for content in ["", "\n \r\n", "\u{FEFF}"] {
            #expect(message { _ = try read(name, content) }.hasPrefix("\(name) has no rows"))
        }
    }

    @Test func emptyArrayIsAnError() {
        #expect(message { _ = try read("a.json", "[ ]") }.hasPrefix("a.json has no rows"))
    }

    @Test func missingFilesAndFolders() throws {
        let missing = FileManager.default.temporaryDirectory.appendingPathComponent("no-such-file.jsonl")
        #expect(message { _ = try DataSet.read(missing) } == "no-such-file.jsonl doesn't exist; check the path")
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("data-\(UUID()).csv")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        #expect(message { _ = try DataSet.read(folder) }.contains("is a folder"))
    }

    @Test(arguments: ["a.jsonl", "a.json", "a.csv"])
    func invalidUTF8NamesTheLine(name: String) throws {
        let start = name == "a.json" ? "[\n" : "\"x\"\n"
        let first = name == "a.jsonl" ? "{}\n" : start
        let bytes = Array(first.utf8) + [0x22, 0xFF, 0x22, 0x0A]
        try withTemporaryFile(name, bytes) { url in
            let error = message { _ = try DataSet.read(url) }
            #expect(error == "\(name) line 2 is not UTF-8 text; save the file as UTF-8")
        }
    }

    // MARK: Tables

    @Test func readsCSV() throws {
        let rows = try read(
            "a.csv", "text,label,note\r\n\"two\nlines, \"\"quoted\"\"\",1,\r\n\r\nplain, 2,\"\"\r\n\"a\r\nb\",3,last")
        #expect(
            rows.map(\.fields) == [
                ["text": "two\nlines, \"quoted\"", "label": "1", "note": ""],
                ["text": "plain", "label": "2", "note": ""],
                ["text": "a\r\nb", "label": "3", "note": "last"],
            ])
        #expect(rows.map(\.location.number) == [2, 5, 6])
    }

    /// The text of a row has the columns in their order.
    @Test(arguments: [("a.csv", "z,a\n1,\"\"\"2\"\"\""), ("a.tsv", "z\ta\n1\t\"2\"")])
    func columnsKeepTheirOrder(name: String, content: String) throws {
        let row = try withTemporaryFile(name, content.utf8) { try DataSet.read($0, keepsText: true)[0] }
        #expect(row.text == #"{"z": "1", "a": "\"2\""}"#)
        #expect(try read(name, content)[0].text == nil)
    }

    @Test func readsTabsAndSemicolons() throws {
        #expect(try read("a.tsv", "x\ty\n1,5\t2").map(\.fields) == [["x": "1,5", "y": "2"]])
        #expect(try read("a.csv", "x;y\n1,5;2").map(\.fields) == [["x": "1,5", "y": "2"]])
        #expect(try read("a.tsv", "x,y\n1,5").map(\.fields) == [["x,y": "1,5"]])
    }

    @Test(arguments: [
        ("x,y,x\n1,2,3", "has more than one column named 'x'; rename"),
        ("x,y\n", "has a header but no rows"),
        ("x,y\n1,2\n1,2,3\n", "line 3 has 3 columns where the header has 2; quote fields that contain a delimiter"),
        ("x,y\n\"1\n\n\",2\n1", "line 5 has 1 column where the header has 2; quote fields that contain a delimiter"),
        ("x,y\n1,2\n3,\"open\n4,5\n", "line 3 opens a double quote that is never closed"),
        ("x,y\n\"a\" b,2\n", "line 2 has a stray double quote"),
        ("x,y\n1,5\" screen\n", "line 2 has a stray double quote"),
        ("x,\"y\n", "line 1 opens a double quote that is never closed"),
    ])
    func brokenTables(content: String, expected: String) {
        let error = message { _ = try read("a.csv", content) }
        #expect(error.hasPrefix("a.csv \(expected)"), "\(error)")
    }

    /// Row counts and lengths as Python's `csv` reads them.
    @Test(
        .enabled(if: Fixture.shared("banking77/test.csv") != nil, "needs shared/data beside the package"),
        arguments: [("banking77/test.csv", 3080), ("e2e_nlg/testset_w_refs.csv", 4693)])
    func readsRealTables(path: String, count: Int) throws {
        let rows = try DataSet.read(#require(Fixture.shared(path)))
        #expect(rows.count == count)
        #expect(rows.allSatisfy { $0.fields.count == 2 })
    }
}
