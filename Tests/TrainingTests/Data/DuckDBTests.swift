import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

@Suite struct DuckDBTests {
    private func query(_ name: String) throws -> String { try DuckDB.arguments(for: DataSource(name)).last ?? "" }

    @Test func namesCanNotBecomeStatements() throws {
        try withTemporaryFile("it's; drop [a]*.parquet", "PAR1".utf8) { (file: URL) throws in
            let folder = DuckDB.escaped(file.deletingLastPathComponent().path)
            #expect(try query(file.path) == "SELECT * FROM read_parquet('\(folder)/it''s; drop [[]a][*].parquet')")
        }
        #expect(
            try query("s3://b/it's.csv")
                == "SELECT * FROM read_csv('s3://b/it''s.csv', all_varchar = true, header = true, nullstr = '\\N')")
    }

    @Test func remoteFilesAreReadAsTheirOwnText() throws {
        #expect(
            try query("https://x.org/a.jsonl.gz")
                == "SELECT json FROM read_ndjson_objects('https://x.org/a.jsonl.gz')")
        #expect(try query("https://x.org/a.json?v=2") == "SELECT content FROM read_text('https://x.org/a.json?v=2')")
        #expect(try DuckDB.arguments(for: DataSource("https://x.org/a.json")).contains("-list"))
        #expect(try DuckDB.arguments(for: DataSource("hf://d/a.parquet")).contains("-jsonlines"))
        #expect(message { _ = try query("https://x.org/a.txt.gz") }.contains("download it"))
        #expect(message { _ = try query("https://x.org/a.xlsx") }.contains("unknown data format 'xlsx'"))
        #expect(message { _ = try query("https://x.org/a") }.contains("unknown data format ''"))
    }

    /// DuckDB itself, where it is installed: what it makes of files is what our own readers make of them.
    @Test(.enabled(if: (try? DuckDB.locate(for: DataSource("from x"))) != nil, "DuckDB isn't installed: make duckdb"))
    func duckDBReadsWhatWeRead() throws {
        let files = [
            ("a.csv", "x,y\n,1\n\"two, \"\"2\"\"\nlines\",é\n"), ("a.tsv", "x\ty\n\"q\" 1\t\nhe said \"\tb\n"),
            ("a.jsonl", "{\"x\": [1, {\"b\": null}], \"y\": 1.50}\n\n{\"x\": \"é|\\n\"}\n"),
            ("a.json", "[{\"x\": \"a\"},\n {\"x\": \"b\\n\"}]"), ("a.txt", "one|two\n\nthree \"3\"\n"),
        ]
        for (name, text) in files {
            try withTemporaryFile(name, text.utf8) { (file: URL) throws in
                let statement = DuckDB.statement(for: file.path, try DataFormat(fileName: name))
                let mode =
                    DuckDB.writesRows(try DataFormat(fileName: name)) ? ["-jsonlines"] : ["-list", "-noheader"]
                let output = try ProgramOutput(
                    DuckDB.locate(for: DataSource(file)),
                    ["-no-init", "-batch", "-bail"] + mode + ["-c", statement],
                    name: name)
                let copy = file.deletingLastPathComponent().appendingPathComponent(
                    mode[0] == "-jsonlines" ? "copy.jsonl" : "copy.\(file.pathExtension)")
                try Data(ByteStream(output).readToEnd()).write(to: copy)
                #expect(try DataSet.read(copy).map(\.fields) == DataSet.read(file).map(\.fields), "\(name)")
            }
        }
        try withTemporaryFile("it's [1]*.csv", "x,y\n1,a\n2,b\n".utf8) { (file: URL) throws in
            let parquet = file.deletingLastPathComponent().appendingPathComponent("it's [1]*.parquet")
            let copy =
                "copy (select x, y, [x] as l, {'role': y} as s from read_csv(\(DuckDB.quoted(DuckDB.escaped(file.path))))) to \(DuckDB.quoted(parquet.path))"
            _ = try ByteStream(
                ProgramOutput(DuckDB.locate(for: DataSource(file)), ["-c", copy], name: "")
            ).readToEnd()
            let rows = try DataSet.read(parquet, keepsText: true)
            #expect(
                rows.map(\.fields) == [
                    ["x": 1, "y": "a", "l": [1], "s": ["role": "a"]],
                    ["x": 2, "y": "b", "l": [2], "s": ["role": "b"]],
                ])
            #expect(rows[1].location.description.hasSuffix(".parquet row 2"))
            let query = "select y as label from \(DuckDB.quoted(DuckDB.escaped(file.path))) where x > 1"
            #expect(try DataSet.read(DataSource(query)).map(\.fields) == [["label": "b"]])
            #expect(
                message { _ = try DataSet.read(DataSource("select zz from (select 1 as a)")) }.contains(
                    "Binder Error"))
            #expect(
                message { _ = try DataSet.read(DataSource("select 1 where false")) }
                    == "the query has no rows; a data file needs at least one")
        }
    }
}
