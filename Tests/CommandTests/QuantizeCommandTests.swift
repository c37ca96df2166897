import Foundation
import PEFTSupport
import Testing

/// The way from a plain base to a merged quantized model, on the embedded T5.
@Suite(.serialized)
struct QuantizeCommandTests {

    @Test func quantizeTrainMergeEvaluate() throws {
        let program = try Program()
        defer { program.remove() }
        let lines = (0..<12).map {
            "Person \($0) asks the way to the station, and the answer is street number \($0 * 7)."
        }
        try program.write("text.txt", lines.joined(separator: "\n"))
        let rows = (0..<6).map { ##"{"talk": "#Person1#: Hello \##($0).", "short": "They greet \##($0)."}"## }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let made = try json(
            program.run([
                "quantize", "--model", program.model, "--to", "int4", "--group", "32", "--calibration", "text.txt",
                "--output", "base", "--json",
            ]))
        #expect(made["method"] == "gptq")
        let projections = try #require(made["projections"]?.array)
        #expect(projections.count > 10)
        let shares = projections.compactMap { row -> Double? in
            guard let own = row["output_error"]?.double, let nearest = row["nearest_output_error"]?.double else {
                return nil
            }
            return own / nearest
        }
        #expect(shares.count == projections.count)
        #expect(shares.reduce(0, +) / Double(shares.count) < 0.9)
        #expect((made["bytes"]?.int ?? 0) * 10 < (made["bytes_before"]?.int ?? 0) * 7)
        let trained = try program.run([
            "train", "--model", "base", "--data", "rows.jsonl", "--prompt", "Summarize: {talk}", "--target",
            "{short}",
            "--method", "qalora", "--rank", "4", "--steps", "6", "--lr", "1e-2", "--quiet", "--output", "adapter",
        ])
        #expect(trained.status == 0, "\(trained.error)")
        func loss(_ options: [String]) throws -> Double {
            let report = try json(
                program.run(["evaluate", "--data", "rows.jsonl", "--max-new-tokens", "1", "--json"] + options))
            return try #require(report["loss"]?.double)
        }
        let beside = try loss(["--adapter", "adapter"])
        for (zeros, tolerance) in [("float32", 1e-4), ("float16", 1e-2), ("rounded", 1.0)] {
            let merged = try json(
                program.run(["merge", "adapter", "--output", zeros, "--zeros", zeros, "--json"]))
            #expect(merged["zeros"] == .string(zeros))
            #expect(
                merged["drift"]?.array?.compactMap { $0["dtype"]?.string } == [
                    "float32", "bfloat16", "float16", "zeros float16", "zeros rounded",
                ])
            let templates = ["--prompt", "Summarize: {talk}", "--target", "{short}"]
            #expect(abs(try loss(["--model", zeros] + templates) - beside) < tolerance * beside)
        }
    }

    /// An adapter remembers how its base's embeddings were kept; folders that others read say it or are refused.
    @Test func embeddingsInFewerBits() throws {
        let program = try Program()
        defer { program.remove() }
        let rows = (0..<6).map { ##"{"talk": "#Person1#: Hello \##($0).", "short": "They greet \##($0)."}"## }
        try program.write("rows.jsonl", rows.joined(separator: "\n"))
        let templates = ["--prompt", "Summarize: {talk}", "--target", "{short}"]
        let trained = try program.run(
            [
                "train", "--model", program.model, "--data", "rows.jsonl", "--method", "lora", "--rank", "4",
                "--weights", "nf4", "--embedding-weights", "int8", "--steps", "4", "--lr", "1e-2", "--quiet",
                "--output", "adapter",
            ] + templates)
        #expect(trained.status == 0, "\(trained.error)")
        let record = try JSON.read(program.folder.appendingPathComponent("adapter/training.json"))
        #expect(record["weights"] == "nf4" && record["embeddingWeights"] == "int8")
        func loss(_ options: [String]) throws -> Double {
            let report = try json(
                program.run(["evaluate", "--data", "rows.jsonl", "--max-new-tokens", "1", "--json"] + options))
            return try #require(report["loss"]?.double)
        }
        let own = try loss(["--adapter", "adapter"])
        #expect(try loss(["--adapter", "adapter", "--embedding-weights", "int8"]) == own)
        let wide = try loss(["--adapter", "adapter", "--embedding-weights", "fp32"])
        #expect(wide != own && abs(wide - own) < 0.05 * own)
        _ = try json(program.run(["merge", "adapter", "--output", "merged", "--dtype", "float32", "--json"]))
        #expect(abs(try loss(["--model", "merged"] + templates) - own) < 1e-4 * own)

        let plans = try ["fp32", "int8"].map { kind in
            try json(
                program.run(["plan", program.model, "--weights", "nf4", "--embedding-weights", kind, "--json"]))
        }
        let bytes = plans.map { $0["plans"]?.array?.first?["memory"]?["weights"]?.int ?? 0 }
        #expect(bytes[1] > 0 && bytes[1] < bytes[0])

        _ = try json(
            program.run([
                "quantize", "--model", program.model, "--to", "nf4", "--embedding-weights", "bf16", "--output",
                "narrow", "--json",
            ]))
        let settings = try JSON.read(program.folder.appendingPathComponent("narrow/config.json"))
        #expect(settings["dtype"] == "bfloat16")
        let before = program.files
        for (options, words) in [
            (["quantize", "--to", "nf4", "--embedding-weights", "int8"], "can't hold embeddings as int8"),
            (
                ["quantize", "--to", "gguf-q8_0", "--embedding-weights", "bf16"],
                "--to gguf-q8_0 sets the format of embeddings"
            ),
            (["quantize", "--to", "nf4", "--embedding-weights", "int7"], "unknown weight format 'int7'"),
            (
                ["train", "--data", "rows.jsonl", "--method", "full", "--embedding-weights", "int8"] + templates,
                "'shared.weight', which is stored as int8 and can't be trained"
            ),
        ] {
            let result = try program.run(options + ["--model", program.model, "--output", "other.gguf"])
            #expect([1, 64].contains(result.status))
            #expect(result.error.contains(words), "\(result.error)")
        }
        #expect(program.files == before)
    }

    @Test(
        arguments: [
            (["--to", "int5"], "unknown --to 'int5'"), (["--group", "48"], "invalid --group 48"),
            (["--method", "awq"], "unknown --method 'awq'"),
            (["--method", "gptq"], "GPTQ requires calibration data"),
            (["--damping", "0"], "--damping must be positive (got 0.0)"),
        ])
    func wrongUsageIsExplained(options: [String], words: String) throws {
        let program = try Program()
        defer { program.remove() }
        let result = try program.run(["quantize", "--model", program.model, "--output", "base"] + options)
        #expect(result.status == 64)
        #expect(result.error.contains(words), "\(result.error)")
        #expect(program.files.isEmpty)
    }
}
