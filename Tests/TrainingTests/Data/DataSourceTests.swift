import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import Training

/// What `--data` may name.
@Suite struct DataSourceTests {
    private func place(_ name: String) -> DataSource.Place { DataSource(name).place }

    @Test func filesListsAddressesAndQueries() throws {
        #expect(place("a.jsonl") == .file(URL(fileURLWithPath: "a.jsonl")))
        #expect(place("~/a.csv") == .file(URL(fileURLWithPath: NSString(string: "~/a.csv").expandingTildeInPath)))
        #expect(place("file:///x/a.csv") == .file(URL(fileURLWithPath: "/x/a.csv")))
        #expect(DataSource("a.json:train").list == "train")
        #expect(DataSource("a.json.gz:train").list == "train")
        #expect(DataSource("a.csv:train").list == nil)
        #expect(place("a.json:train") == place("a.json"))
        for address in ["https://x.org/a.parquet?v=1", "hf://datasets/a/b.parquet", "s3://b/c.json"] {
            #expect(place(address) == .remote(address))
        }
        #expect(DataSource("https://x.org/a.json:dev").list == "dev")
        for query in ["select * from 'a.csv'", " FROM 'a.csv' where x", "with t as (select 1) select * from t"] {
            #expect(place(query) == .query(query))
        }
        #expect(place("selection.csv") == .file(URL(fileURLWithPath: "selection.csv")))
    }

    @Test func aFileThatExistsIsThatFile() throws {
        for name in ["a.json:train", "from x to y.txt", "b[1].txt"] {
            try withTemporaryFile(name, "{\"text\": \"x\"}\n".utf8) { (file: URL) throws in
                #expect(DataSource(file.path).place == .file(URL(fileURLWithPath: file.path)))
                #expect(try DataSource.all([file.path]) == [DataSource(file.path)])
            }
        }
    }

    @Test func severalFilesInOrder() throws {
        try withTemporaryFile("b.txt", "3\n4\n".utf8) { (file: URL) throws in
            let folder = file.deletingLastPathComponent()
            try Data("1\n2".utf8).write(to: folder.appendingPathComponent("a.txt"))
            let both = try DataSource.all([folder.path + "/?.txt"])
            #expect(try DataSet.read(both).map { $0["text"] } == ["1", "2", "3", "4"])
            #expect(try DataSet.read(both.reversed(), limit: 3).map { $0["text"] } == ["3", "4", "1"])
            #expect(try DataSet.read(both)[2].location.description.hasSuffix("b.txt line 1"))
            try Data().write(to: folder.appendingPathComponent("c.txt"))
            #expect(
                message { _ = try DataSet.read(DataSource.all([folder.path + "/*.txt"])) }.hasPrefix(
                    "c.txt has no rows"))
            #expect(message { _ = try DataSource.all([folder.path + "/*.csv"]) }.hasPrefix("no file matches"))
        }
    }

    @Test func unknownExtensionsNameWhatIsRead() throws {
        let error = message { _ = try read("a.xlsx", "x") }
        #expect(error.hasPrefix("a.xlsx has the unknown data format 'xlsx'; use .jsonl"), "\(error)")
        #expect(error.contains(".parquet (text formats also compressed: .gz, .bz2, .xz, .zst)"))
        #expect(message { _ = try read("a.parquet.gz", "x") }.hasPrefix("a.parquet.gz is a compressed Parquet file"))
        #expect(message { _ = try DataSource("a.xlsx").format() }.hasPrefix("a.xlsx doesn't exist"))
    }

    // MARK: Compression

    private func compress(_ file: URL, _ program: String) throws {
        let process = Process()
        process.executableURL = ProgramOutput.find(program)
        process.arguments = ["-q", file.path]
        try process.run()
        process.waitUntilExit()
    }

    @Test(
        .enabled(if: ProgramOutput.find("gzip") != nil, "gzip isn't on the PATH"),
        arguments: [
            ("a.jsonl", "{\"x\": \"1\"}\n{\"x\": \"2\"}"), ("a.json", "[{\"x\": \"1\"},\n{\"x\": \"2\"}]"),
            ("a.csv", "x,y\n1,\n2,"), ("a.tsv", "x\ty\n1\t\"\n2\t"),
        ])
    func compressedFilesAreReadAsTheirText(name: String, text: String) throws {
        for compression in Compression.all where ProgramOutput.find(compression.program) != nil {
            try withTemporaryFile(name, text.utf8) { (file: URL) throws in
                try compress(file, compression.program)
                let packed = file.appendingPathExtension(compression.fileExtension)
                #expect(try DataSet.read(packed).map { $0["x"] } == ["1", "2"], "\(packed)")
            }
        }
    }

    @Test(.enabled(if: ProgramOutput.find("gzip") != nil, "gzip isn't on the PATH"))
    func damagedFilesAreNamed() throws {
        let rows = (0..<5000).map { "{\"x\": \"row \($0)\"}" }.joined(separator: "\n")
        try withTemporaryFile("a.jsonl", rows.utf8) { (file: URL) throws in
            try compress(file, "gzip")
            let packed = file.appendingPathExtension("gz")
            try Data(contentsOf: packed).prefix(3000).write(to: packed)
            let error = message { _ = try DataSet.read(packed) }
            #expect(error.hasPrefix("can't read a.jsonl.gz; gzip: stdin: unexpected end of file"), "\(error)")
            // What isn't read isn't judged.
            #expect(try DataSet.read(packed, limit: 3).count == 3)
        }
    }
}
