import Foundation
import PEFTSupport
import TestSupport
import Testing

/// Tasks of encoders from the command line, on a BERT of 16 numbers a token with a vocabulary of words.
@Suite(.serialized)
struct TaskCommandTests {
    private static let words = ["red", "green", "blue", "warm", "cold", "day", "night", "river", "stone", "tree"]

    /// A program whose folder holds the model `base`, and rows.
    private func program(_ rows: [JSON]) throws -> Program {
        let program = try Program()
        let base = program.folder.appendingPathComponent("base")
        try FileManager.default.copyItem(
            at: Checkout.model("heads/bert"), to: base)
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        let vocabulary = special + Self.words + (special.count + Self.words.count..<48).map { "filler\($0)" }
        try program.write("base/vocab.txt", vocabulary.joined(separator: "\n"))
        try program.write(
            "base/tokenizer_config.json", #"{"tokenizer_class": "BertTokenizer", "do_lower_case": true}"#)
        try program.write("rows.jsonl", rows.map { $0.text(indent: nil) }.joined(separator: "\n"))
        return program
    }

    private func train(_ program: Program, _ more: [String]) throws -> JSON {
        try json(
            program.run(
                [
                    "train", "--model", "base", "--data", "rows.jsonl", "--output", "out", "--quiet", "--json",
                    "--lr", "0.02",
                ]
                    + more))
    }

    private func quality(_ program: Program, _ more: [String] = []) throws -> [String: JSON] {
        let result = try json(
            program.run(["evaluate", "--adapter", "out", "--data", "rows.jsonl", "--json"] + more))
        return result["quality"]?.object ?? [:]
    }

    private func predictions(_ program: Program, _ more: [String]) throws -> [JSON] {
        let result = try program.run(["predict", "--adapter", "out"] + more)
        #expect(result.status == 0, "\(result.error)")
        return try result.output.split(separator: "\n").map { try JSON.parse(Data($0.utf8), name: "line") }
    }

    /// Two words of which the first is a color, the second is anything.
    private static func texts() -> [(text: String, color: String, other: String)] {
        (0..<12).map { (words[$0 % 3] + " " + words[3 + $0 % 7], words[$0 % 3], words[3 + $0 % 7]) }
    }

    @Test func classesAreLearnedNamedAndPredicted() throws {
        let program = try program(Self.texts().map { ["text": .string($0.text), "kind": .string($0.color)] })
        defer { program.remove() }
        let record = try train(
            program, ["--prompt", "{text}", "--target", "{kind}", "--steps", "40", "--head-lr", "0.05"])
        #expect(record["head"]?["task"] == "classification")
        #expect(record["labels"] == ["blue", "green", "red"])
        let quality = try quality(program)
        #expect(quality.keys.sorted() == ["accuracy", "macroF1", "mcc", "microF1"])
        #expect(quality["accuracy"]?["value"]?.double == 1)
        let made = try predictions(program, ["green stone", "red tree"])
        #expect(made.map { $0["label"] } == ["green", "red"])
        #expect(made.allSatisfy { ($0["score"]?.double ?? 0) > 0.5 })
        // A table keeps its columns; a label that it has already stays beside the predicted one.
        try program.write("new.csv", "id,text,label\n\"7,5\",green stone,?\n8,red tree,?\n")
        let table = try program.run([
            "predict", "--adapter", "out", "--data", "new.csv", "--output", "labels.csv", "--quiet",
        ])
        #expect(table.status == 0 && table.output.isEmpty, "\(table.error)")
        let labels = try String(contentsOf: program.folder.appendingPathComponent("labels.csv"), encoding: .utf8)
        let lines = labels.split(separator: "\n")
        #expect(lines.first == "id,text,label,predicted_label,score")
        #expect(lines.dropFirst().first?.hasPrefix("\"7,5\",green stone,?,green,0.") == true, "\(labels)")
        #expect(lines.count == 3)
        // A command that makes no sense says so.
        let generated = try program.run(["generate", "--adapter", "out", "red tree"])
        #expect(generated.status == 1)
        #expect(generated.error.contains("use peft predict"))
        let merged = try program.run(["merge", "out", "--output", "whole"])
        #expect(merged.status == 0, "\(merged.error)")
        let whole = try program.run(["predict", "--model", "whole", "green stone"])
        #expect(whole.output.contains(#""label": "green""#))
    }

    @Test func pairsNumbersLabelsAndWords() throws {
        let rows = Self.texts().enumerated().map { index, row -> JSON in
            [
                "a": .string(row.color), "b": .string(row.other), "score": .number(Double(index % 3) + 0.5),
                "labels": .array([.string(row.color), .string(row.other)]),
                "words": .array([.string(row.color), .string(row.other)]),
                "tags": ["B-COLOR", "O"],
            ]
        }
        let program = try program(rows)
        defer { program.remove() }
        func trained(_ more: [String], task: String, metrics: [String]) throws {
            try? FileManager.default.removeItem(at: program.folder.appendingPathComponent("out"))
            let record = try train(program, ["--steps", "3"] + more)
            #expect(record["head"]?["task"]?.string == task)
            #expect(try quality(program).keys.sorted() == metrics)
        }
        try trained(
            ["--prompt", "{a}", "--pair", "{b}", "--target", "{score}"], task: "regression",
            metrics: ["mae", "mse", "pearson", "spearman"])
        let numbers = try predictions(program, ["--data", "rows.jsonl", "--limit", "2"])
        #expect(numbers.allSatisfy { $0["score"]?.double != nil && $0["pair"] != nil })
        try trained(
            ["--prompt", "{a} {b}", "--target", "{labels}", "--task", "multi-label"], task: "multi-label",
            metrics: ["accuracy", "macroF1", "microF1"])
        try trained(
            ["--prompt", "{words}", "--target", "{tags}"], task: "token-classification",
            metrics: ["accuracy", "entityF1", "entityPrecision", "entityRecall"])
        let tags = try predictions(program, ["--data", "rows.jsonl", "--limit", "1"])
        #expect(tags.first?["labels"]?.array?.count == 2)
        try trained(
            ["--prompt", "{a}", "--pair", "{b}"], task: "embeddings", metrics: ["mrr", "recall1"])
        let vectors = try predictions(program, ["red"])
        #expect(vectors.first?["embedding"]?.array?.count == 16)
        try trained(
            ["--prompt", "{a}", "--pair", "{b}", "--target", "{score}", "--task", "embeddings", "--pooling", "cls"],
            task: "embeddings", metrics: ["cosinePearson", "cosineSpearman"])
    }

    @Test func whatDoesNotFitIsRefused() throws {
        let program = try program(Self.texts().map { ["text": .string($0.text), "kind": .string($0.color)] })
        defer { program.remove() }
        func refused(_ more: [String], _ words: String) throws {
            let result = try program.run(
                ["train", "--model", "base", "--data", "rows.jsonl", "--output", "out", "--quiet"] + more)
            // What the options alone tell is wrong usage; the rest depends on files.
            let isUsage = words.contains("did you mean") || words.contains("--target is missing")
            #expect(result.status == (isUsage ? 64 : 1), "\(result.error)")
            #expect(result.error.contains(words), "\(result.error)")
            #expect(!program.files.contains("out"))
        }
        let both = ["--prompt", "{text}", "--target", "{kind}"]
        try refused(both + ["--task", "classify"], "did you mean 'classification'")
        try refused(both + ["--task", "regression"], "is not a number")
        try refused(both + ["--task", "causal-lm"], "it is an encoder")
        try refused(both + ["--pooling", "mean"], "applies to embeddings only")
        try refused(["--prompt", "{text}", "--task", "classification"], "--target is missing")
        try refused(["--prompt", "{text}", "--task", "embeddings"], "--pair is missing")
        try refused(both + ["--retain", "rows.jsonl"], "language-modeling loss")
        let writer = try program.run(["predict", "--model", program.model, "red tree"])
        #expect(writer.status == 1)
        #expect(writer.error.contains("use peft generate"))
    }

    @Test func aComparisonMeasuresTheHeadInPlaceOfTheBase() throws {
        let program = try program(Self.texts().map { ["text": .string($0.text), "kind": .string($0.color)] })
        defer { program.remove() }
        let report = try json(
            program.run([
                "compare", "--model", "base", "--methods", "base,full,lora", "--data", "rows.jsonl", "--test",
                "rows.jsonl", "--prompt", "{text}", "--target", "{kind}", "--lr", "1e-3", "--head-lr", "1e-2",
                "--steps",
                "3", "--json", "--quiet",
            ]))
        #expect(report["task"] == "classification")
        #expect(report["primaryMetric"] == "accuracy")
        #expect(report["runs"]?.array?.map { $0["method"] } == ["head", "full", "lora"])
        #expect(report["runs"]?.array?.first?["trainable"]?.int == 3 * 17)
    }
}
