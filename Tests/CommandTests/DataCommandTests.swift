import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Data of many kinds from the command line.
@Suite(.serialized)
struct DataCommandTests {
    private static let rows = (0..<8).map { #"{"q": "Tom \#($0)", "a": "ran \#($0)"}"# }

    private func show(_ program: Program, _ data: [String], duckdb: String? = nil) throws -> Program.Result {
        try program.run(
            ["train", "--model", program.model, "--prompt", "{q}", "--target", "{a}", "--show-batch"]
                + data.flatMap { ["--data", $0] }, environment: ["PEFT_DUCKDB": duckdb ?? Self.duckdb(program)])
    }

    private static func duckdb(_ program: Program) -> String { program.folder.appendingPathComponent("duckdb").path }

    @Test func filesOfManyKindsAndSeveralOfThem() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", Self.rows.joined(separator: "\n"))
        try program.write("array.jsonl", "[\n" + Self.rows.joined(separator: ",\n") + "\n]")
        try program.write("wrapped.json", "{\"data\": [\n" + Self.rows.joined(separator: ",\n") + "]}")
        try program.write(
            "columns.json",
            "{\"q\": [\((0..<8).map { "\"Tom \($0)\"" }.joined(separator: ", "))], \"a\": [\((0..<8).map { "\"ran \($0)\"" }.joined(separator: ", "))]}"
        )
        try program.write("plain.tsv", "\u{FEFF}q\ta\n" + (0..<8).map { "\"Tom\" \($0)\tran \" \($0)\n" }.joined())
        for name in ["rows.jsonl", "array.jsonl", "wrapped.json", "columns.json", "plain.tsv"] {
            let result = try show(program, [name])
            #expect(result.output.contains("8 rows in all"), "\(name): \(result.error)")
        }
        let all = try show(program, ["rows.jsonl", "columns.json", "*s.jsonl"])
        #expect(all.output.contains("24 rows in all"), "\(all.error)")
        try program.write("splits.json", #"{"train": [{"q": "x", "a": "y"}], "test": []}"#)
        let ambiguous = try show(program, ["rows.jsonl", "splits.json"])
        #expect(ambiguous.error.hasPrefix("error: "))
        #expect(
            ambiguous.error.contains(
                "splits.json has the lists 'train' (1) and 'test' (0); choose one, such as splits.json:train"))
        #expect(try show(program, ["splits.json:train"]).output.contains("1 example"))
    }

    @Test func aPartIsHeldOutAndSharedRowsAreNamed() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", Self.rows.joined(separator: "\n"))
        func train(_ more: [String]) throws -> Program.Result {
            try program.run(
                [
                    "train", "--model", program.model, "--data", "rows.jsonl", "--prompt", "{q}", "--target", "{a}",
                    "--steps", "1", "--batch-size", "2", "--rank", "2", "--output", "out", "--quiet", "--json",
                ] + more)
        }
        let held = try train(["--validation-split", "0.25"])
        #expect(held.status == 0, "\(held.error)")
        let record = try JSON.parse(Data(held.output.utf8), name: "output")
        #expect(record["trainingRows"]?.int == 6 && record["validationRows"]?.int == 2)
        #expect(record["validationSplit"]?.double == 0.25)
        #expect(held.error.contains("2 of 8 examples are held out for validation"), "\(held.error)")
        try FileManager.default.removeItem(at: program.folder.appendingPathComponent("out"))

        let both = try train(["--validation-split", "0.25", "--validation", "rows.jsonl"])
        #expect(both.status != 0 && both.error.contains("--validation and --validation-split"))
        let share = try train(["--validation-split", "10"])
        #expect(share.status != 0 && share.error.contains("between 0 and 1"))

        try program.write("dev.jsonl", Self.rows[3] + "\n" + #"{"q": "Ann", "a": "sat"}"#)
        let shared = try train(["--validation", "dev.jsonl"])
        #expect(shared.status == 0, "\(shared.error)")
        #expect(
            shared.error.contains("1 of the 2 validation examples is also in the training data"), "\(shared.error)")
    }

    // MARK: Classes

    /// A BERT of 16 numbers a token that tells three classes apart, or with a new head.
    private func classifier(_ names: [String]) throws -> Program {
        let program = try Program()
        let base = program.folder.appendingPathComponent("base")
        try FileManager.default.copyItem(
            at: Checkout.model("heads/bert"), to: base)
        let vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + (5..<48).map { "word\($0)" }
        try program.write("base/vocab.txt", vocabulary.joined(separator: "\n"))
        try program.write(
            "base/tokenizer_config.json", #"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#)
        guard !names.isEmpty, case .object(var fields) = try JSON.read(base.appendingPathComponent("config.json"))
        else {
            return program
        }
        fields["architectures"] = ["BertForSequenceClassification"]
        fields["id2label"] = .object(
            Dictionary(uniqueKeysWithValues: names.enumerated().map { (String($0), JSON.string($1)) }))
        try program.write("base/config.json", JSON.object(fields).text())
        return program
    }

    private func trained(_ program: Program, _ more: [String] = []) throws -> JSON {
        let result = try program.run(
            [
                "train", "--model", "base", "--data", "rows.jsonl", "--prompt", "{text}", "--target", "{label}",
                "--steps", "2", "--output", "out", "--quiet", "--json",
            ] + more)
        #expect(result.status == 0, "\(result.error)")
        return try JSON.parse(Data(result.output.utf8), name: "output")
    }

    @Test func integersAreClassesInTheirOrderOrNumbersOfNames() throws {
        let rows = (0..<24).map { #"{"text": "word\#(5 + $0)", "label": \#($0 % 12)}"# }.joined(separator: "\n")
        let plain = try classifier([])
        defer { plain.remove() }
        try plain.write("rows.jsonl", rows)
        #expect(try trained(plain)["labels"]?.array == (0..<12).map { .string(String($0)) })

        let names = (0..<12).map { "kind \($0)" }
        let named = try classifier(names)
        defer { named.remove() }
        try named.write("rows.jsonl", rows)
        #expect(try trained(named)["labels"]?.array == names.map { .string($0) })
        try named.write("more.jsonl", rows + "\n" + #"{"text": "word7", "label": "spam"}"#)
        let result = try named.run(["evaluate", "--adapter", "out", "--data", "more.jsonl", "--json"])
        #expect(result.status == 0, "\(result.error)")
        #expect(result.error.contains("class indices: 0 is 'kind 0', 1 is 'kind 1'"), "\(result.error)")
        #expect(result.error.contains("'spam' (1)"), "\(result.error)")
        let report = try JSON.parse(Data(result.output.utf8), name: "output")
        #expect(report["unknownLabels"] == ["spam": 1])
        #expect(report["rows"] == 25)
        try named.write("other.jsonl", #"{"text": "word7", "label": "spam"}"#)
        let none = try named.run(["evaluate", "--adapter", "out", "--data", "other.jsonl"])
        #expect(none.status == 1 && none.error.contains("no example has one of the model's labels"), "\(none.error)")
    }

    @Test func rowsMayHaveNoLabelAmongMany() throws {
        let program = try classifier([])
        defer { program.remove() }
        let labels = ["[]", #"["a", "b"]"#, #"["b"]"#, #""""#]
        try program.write(
            "rows.jsonl",
            (0..<12).map { #"{"text": "word\#(5 + $0)", "label": \#(labels[$0 % 4])}"# }.joined(separator: "\n"))
        #expect(try trained(program, ["--task", "multi-label"])["labels"] == ["a", "b"])
        let result = try program.run(["evaluate", "--adapter", "out", "--data", "rows.jsonl", "--json"])
        #expect(result.status == 0, "\(result.error)")
    }

    // MARK: DuckDB

    /// A program in DuckDB's place, whose arguments end in the query.
    private func duckdb(_ program: Program, _ script: String) throws {
        try program.write("duckdb", "#!/bin/sh\nfor query; do :; done\n\(script)\n")
        try FileManager.default.setAttributes(
            [.posixPermissions: 0o755], ofItemAtPath: Self.duckdb(program))
    }

    @Test func parquetAndQueriesGoThroughDuckDB() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("it's.parquet", "PAR1")
        try duckdb(
            program,
            """
            echo "$query" >> queries
            echo $$ > process
            i=0; while [ $i -lt 20 ]; do echo "{\\"q\\":\\"Tom $i\\",\\"a\\":\\"ran\\",\\"m\\":[{\\"x\\":1}]}"; i=$((i+1)); done
            [ -e endless ] && exec yes '{"q":"Tom","a":"ran"}'
            exit 0
            """)
        let result = try show(program, ["it's.parquet", "select * from 'x''y.csv'"])
        #expect(result.output.contains("40 rows in all"), "\(result.error)")
        let queries = try String(contentsOf: program.folder.appendingPathComponent("queries"), encoding: .utf8)
        #expect(
            queries.contains("SELECT * FROM read_parquet('") && queries.contains("/it''s.parquet')"), "\(queries)")
        #expect(queries.contains("\nselect * from 'x''y.csv'\n"))

        // Reading stops early, and so does the program.
        try program.write("endless", "")
        let part = try program.run(
            [
                "train", "--model", program.model, "--prompt", "{q}", "--target", "{a}", "--show-batch", "--data",
                "https://example.org/a.parquet", "--limit", "30",
            ], environment: ["PEFT_DUCKDB": Self.duckdb(program)])
        #expect(part.output.contains("30 rows in all"), "\(part.error)")
        let process = try String(contentsOf: program.folder.appendingPathComponent("process"), encoding: .utf8)
        #expect(kill(try #require(pid_t(process.trimmingCharacters(in: .newlines))), 0) == -1)
    }

    @Test func whatDuckDBSaysIsTheError() throws {
        let program = try Program()
        defer { program.remove() }
        try duckdb(program, "echo '{\"q\":1,\"a\":2}'; printf 'Parser Error: no such\\n\\nLINE 1: x\\n' >&2; exit 1")
        let result = try show(program, ["from nothing"])
        #expect(result.status == 1)
        #expect(result.error.contains("can't read the query; Parser Error: no such\n"), "\(result.error)")
        try duckdb(program, "echo '{\"q\":NaN}'")
        #expect(
            try show(program, ["from nothing"]).error.contains("the query row 1 is not valid JSON: NaN is not JSON"))
        #expect(
            try show(program, ["from nothing"], duckdb: "/nowhere/duckdb").error.contains(
                "PEFT_DUCKDB is /nowhere/duckdb, which is not executable"))
        let missing = try show(program, ["missing.parquet"])
        #expect(missing.error.contains("missing.parquet doesn't exist"), "\(missing.error)")
    }
}
