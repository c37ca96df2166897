import Foundation
import PEFTSupport
import Testing

/// Comparisons whose rows are also merged and stored in few bits.
@Suite(.serialized)
struct RequantizedCommandTests {
    private let rows = (0..<6).map { ##"{"talk": "#Person1#: Hello \##($0).", "short": "They greet \##($0)."}"## }
    private let templates = ["--prompt", "Summarize: {talk}", "--target", "{short}"]

    @Test func aRowForEachWayToStore() throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let training = ["--steps", "3", "--batch-size", "2", "--warmup", "0"]
        let report = try json(
            program.run(
                [
                    "compare", "--model", program.model, "--methods",
                    "base,lora(rank=2,targets=q+v),qalora(rank=2,targets=q+v,weights=int4-g32),prompt(tokens=2)",
                    "--quantize-after", "nf4,int4-g32-gptq", "--data", "rows.jsonl", "--test", "rows.jsonl", "--lr",
                    "1e-2", "--seeds", "2", "--max-new-tokens", "2", "--html", "report.html", "--json", "--quiet",
                ] + templates + training))
        let runs = try #require(report["runs"]?.array)
        let labels = runs.compactMap { $0["label"]?.string }
        #expect(
            labels == [
                "base", "base → nf4", "base → int4-g32-gptq", "LoRA r 2 (q, v)", "LoRA r 2 (q, v) → nf4",
                "LoRA r 2 (q, v) → int4-g32-gptq", "QA-LoRA r 2 g 32 (q, v) over int4-g32",
                "QA-LoRA r 2 g 32 (q, v) over int4-g32 → merged", "prompt tuning, 2 tokens",
            ])
        #expect(runs.map { $0["source"]?.int } == [nil, 0, 0, nil, 3, 3, nil, 6, nil])
        #expect(report["skipped"]?.array?.count == 2)
        func loss(_ index: Int) -> Double { runs[index]["loss"]?["mean"]?.double ?? .nan }
        func bytes(_ index: Int) -> Int { runs[index]["modelBytes"]?.int ?? 0 }
        // Merging into zeros changes nothing but what fp16 rounds.
        #expect(abs(loss(7) / loss(6) - 1) < 1e-4 && loss(6) < loss(0))
        #expect(runs[7]["loss"]?["values"]?.array?.count == 2)
        #expect(loss(4) != loss(3) && abs(loss(4) - loss(3)) < 0.5 && abs(loss(5) - loss(3)) < 0.5)
        #expect(bytes(3) == bytes(0) + (runs[3]["adapterBytes"]?.int ?? 0))
        #expect(bytes(4) < bytes(0) * 7 / 10 && bytes(7) < bytes(6) + 50_000)
        let change = runs[4]["differences"]?.array?.first { $0["to"]?.int == 3 && $0["metric"]?.string == "loss" }
        #expect(change?["value"]?.double.map { abs($0 - (loss(4) - loss(3))) < 1e-9 } == true)
        let page = try String(contentsOf: program.folder.appendingPathComponent("report.html"), encoding: .utf8)
        #expect(page.contains(">Quantization <small>Δ ") && page.contains("Model size"))

        // The same by hand: trained, merged, quantized, evaluated.
        func run(_ arguments: [String]) throws {
            let result = try program.run(arguments)
            #expect(result.status == 0, "\(result.error)")
        }
        try run(
            [
                "train", "--model", program.model, "--method", "lora", "--rank", "2", "--targets", "q,v", "--lr",
                "1e-2",
                "--data", "rows.jsonl", "--output", "adapter", "--quiet",
            ] + templates + training)
        // Not rounded to the type of the file in between.
        try run(["merge", "adapter", "--dtype", "float32", "--output", "merged"])
        try run(["quantize", "--model", "merged", "--to", "nf4", "--output", "stored"])
        let alone = try json(
            program.run(
                ["evaluate", "--model", "stored", "--data", "rows.jsonl", "--max-new-tokens", "2", "--json"]
                    + templates))
        let first = try #require(runs[4]["loss"]?["values"]?.array?.first?.double)
        #expect(abs(first / (alone["loss"]?.double ?? .nan) - 1) < 1e-4)
        try run(["merge", "adapter", "--output", "narrow"])
        try run(["quantize", "--model", "narrow", "--to", "nf4", "--output", "shipped"])
        let file = program.folder.appendingPathComponent("shipped/model.safetensors")
        let size = try file.resourceValues(forKeys: [.fileSizeKey]).fileSize ?? 0
        #expect(abs(Double(bytes(4)) / Double(size) - 1) < 0.01)
    }

    @Test(arguments: [
        (["--methods", "lora", "--quantize-after", "nf5"], "unknown weight format 'nf5'"),
        (["--methods", "lora", "--quantize-after", "bf16"], "which is not a quantization format"),
        (["--methods", "lora", "--quantize-after", "int4-g96"], "can be stored as int4-g96"),
        (["--methods", "lora(weights=int7)"], "unknown weight format 'int7'"),
        (["--methods", "base(rank=3)"], "base has no field 'rank'"),
    ])
    func wrongUsageIsExplained(options: [String], words: String) throws {
        let program = try Program()
        defer { program.remove() }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let result = try program.run(
            [
                "compare", "--model", program.model, "--data", "rows.jsonl", "--test", "rows.jsonl", "--lr", "1e-3",
                "--steps", "1", "--quiet",
            ] + templates + options)
        #expect([1, 64].contains(result.status) && result.error.contains(words), "\(result.error)")
        let lines = result.error.split(separator: "\n").filter { !$0.hasPrefix("warning: ") }
        #expect(lines.count == 1, "\(result.error)")
    }
}
