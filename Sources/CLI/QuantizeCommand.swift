import ArgumentParser
import Foundation
import LanguageModels
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN
import Training

struct QuantizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quantize",
        abstract: "Quantize a model for bitsandbytes, GPTQ or llama.cpp (GGUF).",
        discussion: """
            peft quantize --model my-model --to nf4 --double --output my-model-nf4
            peft quantize --model my-model --to int4 --group 32 --calibration text.txt --output my-model-int4
            peft quantize --model my-model --to gguf-q4_0 --output my-model.gguf

            nf4 and fp4 are the 4-bit block formats of bitsandbytes, int8 its 8-bit format with one scale per output.
            int2, int3, int4 and int8-groups are group quantization in the GPTQ file format. The gguf formats are
            llama.cpp's, tokenizer included.

            With calibration data, GPTQ compensates the rounding error of each column in the columns after it; without,
            weights are rounded to nearest (RTN). The report shows the relative error of the weights and, with
            calibration data, of the outputs, beside that of RTN. Embeddings, norms and the output layer are not
            quantized; --embedding-weights bf16 stores embeddings as bf16.
            """)

    @OptionGroup var model: ModelOptions
    @Option(
        name: .shortAndLong, help: ArgumentHelp("Output folder, or .gguf file, for the model.", valueName: "folder"))
    var output: String
    @Option(
        help: """
            Quantization format: \(list(blockNames)) (bitsandbytes); \(groupList) (GPTQ); \
            \(GGUFTarget.names.joined(separator: ", ")) (llama.cpp).
            """) var to = "int4"
    @Flag(help: "Double quantization: quantize the scales of nf4 or fp4 blocks too.") var double = false
    @Option(help: ArgumentHelp("Block size of nf4 or fp4: weights per scale.", valueName: "n")) var block = 64
    @Option(
        help: ArgumentHelp(
            "Group size: inputs per scale and zero point; -1 for one group per output.", valueName: "n"))
    var group = 128
    @Flag(help: "Symmetric quantization, required by some loaders.") var symmetric = false
    @Option(help: "Quantization method: gptq or rtn (default: gptq with --calibration, else rtn).") var method:
        String?
    @Option(
        help: ArgumentHelp(
            "Calibration data for GPTQ: lines of text, or rows with --prompt and --target.", valueName: "file"))
    var calibration: String?
    @Option(help: ArgumentHelp("Maximum number of calibration examples.", valueName: "n")) var limit = 128
    @Option(help: "GPTQ damping, as a fraction of the mean diagonal of the Hessian.") var damping = 0.01
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "Print the result as JSON.") var json = false

    /// As in `nf4, fp4 or int8`.
    private static func list(_ names: [String]) -> String {
        (names.count < 2 ? names : [names.dropLast().joined(separator: ", "), names[names.count - 1]])
            .joined(separator: " or ")
    }

    /// The formats of bitsandbytes, which need no calibration data.
    private static let blockNames = WeightFormat.loadingQuantizers.map(\.name)
    static let groupList = list(WeightFormat.groupNames.map(\.name))

    func run() throws {
        try checkEmbeddings()
        if let type = try GGUFTarget.type(to, usual: .q8_0) { return try writeGGUF(type) }
        if let storage = try storage() { return try keep(storage) }
        guard let bits = WeightFormat.groupNames.first(where: { $0.name == to.lowercased() })?.bits else {
            let names = Self.blockNames + WeightFormat.groupNames.map(\.name) + GGUFTarget.names
            throw UsageError("unknown --to '\(to)'", remedy: "use one of \(names.joined(separator: ", "))")
        }
        guard group == -1 || group > 0 && group.isMultiple(of: 32) else {
            throw UsageError(
                "invalid --group \(group)", remedy: "use a multiple of 32, or -1 for one group per output")
        }
        let method = method?.lowercased() ?? (calibration == nil ? "rtn" : "gptq")
        guard ["gptq", "rtn"].contains(method) else {
            throw UsageError("unknown --method '\(method)'", remedy: "use gptq or rtn")
        }
        guard method == "rtn" || calibration != nil else {
            throw UsageError("GPTQ requires calibration data", remedy: "add --calibration FILE, or use --method rtn")
        }
        guard damping > 0, damping.isFinite else {
            throw UsageError("--damping must be positive (got \(damping))", remedy: "use a value such as 0.01")
        }
        let target = try Output.folder(output)
        _ = try model.prepare()
        let folder = try model.folder()
        let loaded = try folder.load(device: Device(model.device))
        try loaded.requireFiniteWeights()
        let tokenizer = try Tokenizer.load(folder: folder.url)
        var quantizer = GroupQuantizer(
            GroupQuantization(bits: bits, groupSize: group == -1 ? nil : group, isSymmetric: symmetric))
        quantizer.damping = damping
        let left = quantizer.selection(in: loaded).left
        var outcomes: [GroupQuantizer.Outcome]
        if method == "gptq", let calibration {
            let batches = try samples(calibration, for: loaded, tokenizer)
            outcomes = try quantizer.calibrate(loaded) {
                for batch in batches {
                    _ = loaded.generates ? loaded.lossSum(batch, labelSmoothing: 0) : loaded.logits(batch)
                    try checkTorchErrors()
                }
            } progress: { outcome in
                if !json, !Console.isQuiet { Console.note("quantized \(outcome.path)") }
            }
        } else {
            outcomes = try quantizer.round(loaded)
        }
        let experts = try quantizer.roundExperts(of: loaded)
        if !experts.isEmpty, method == "gptq" {
            Console.note("the experts are rounded to nearest, as the calibration reaches only some of them")
        }
        outcomes += experts
        let stored = try storedType(folder)
        let settings = folder.url.appendingPathComponent("generation_config.json")
        let more = FileManager.default.fileExists(atPath: settings.path) ? [FolderFile(copyOf: settings)] : []
        try loaded.save(
            to: target, copying: Tokenizer.files(in: folder.url) + more, dtype: stored, replacing: false)
        report(
            outcomes, left: left, method: method, before: folder.weightBytes,
            after: try ModelFolder(target).weightBytes)
    }

    /// Checks that the output format can store embeddings as `--embedding-weights`.
    private func checkEmbeddings() throws {
        guard let name = model.formats.embeddingWeights else { return }
        let storage = try WeightStorage(embeddings: name)
        guard try GGUFTarget.type(to, usual: .q8_0) == nil else {
            throw UsageError(
                "--to \(to) sets the format of embeddings and cannot be used with --embedding-weights",
                remedy: "remove --embedding-weights")
        }
        guard !storage.format.isQuantized else {
            throw UsageError(
                "the Hugging Face layout can't hold embeddings as \(storage.name)",
                remedy: "use --embedding-weights bf16 here, and \(storage.name) when loading the folder")
        }
    }

    /// The data type of tensors that are not quantized.
    func storedType(_ folder: ModelFolder) throws -> DType {
        try folder.embeddingStorage?.format.dtype ?? folder.storedType() ?? .float32
    }

    /// Batches of calibration examples.
    private func samples(_ file: String, for model: any LanguageModel, _ tokenizer: Tokenizer) throws
        -> [TrainingBatch]
    {
        var templates = templates
        if templates.prompt == nil, templates.target == nil {
            // Lines of text: a generative model requires a target, others a prompt.
            if model.generates { templates.target = "{text}" } else { templates.prompt = "{text}" }
        }
        if templates.prompt == nil { templates.prompt = "" }
        let rowTemplates = try templates.templateSettings().templates(needsTarget: false)
        try require("--limit", limit)
        let rows = try rowTemplates.examples(from: DataSet.read(DataSource.all([file]), limit: limit))
        let longest = min(templates.maxInput ?? TemplateOptions.defaultMaxInput, model.positionRoom() ?? .max)
        let encoded = rows.compactMap { row -> EncodedExample? in
            let ids = Array(tokenizer.encode(text: row.prompt + row.target).prefix(longest))
            guard ids.count > 1 else { return nil }
            switch model.architecture {
            case .encoder: return EncodedExample(input: ids, target: [0])
            case .decoder: return EncodedExample(input: [ids[0]], target: Array(ids[1...]))
            case .encoderDecoder:
                return EncodedExample(input: Array(ids[..<(ids.count / 2)]), target: Array(ids[(ids.count / 2)...]))
            }
        }
        guard !encoded.isEmpty else {
            throw PEFTError("\(file) has no text", remedy: "use a file with at least one example of two tokens")
        }
        return stride(from: 0, to: encoded.count, by: 8).map { start in
            model.batch(Array(encoded[start..<min(start + 8, encoded.count)]))
        }
    }

    private func report(
        _ outcomes: [GroupQuantizer.Outcome], left: [(path: String, reason: String)], method: String, before: Int,
        after: Int
    ) {
        if json {
            let rows = outcomes.map { outcome -> JSON in
                [
                    "path": .string(outcome.path), "weight_error": .number(outcome.weightError),
                    "output_error": outcome.outputError.map(JSON.number) ?? .null,
                    "nearest_output_error": outcome.nearestOutputError.map(JSON.number) ?? .null,
                    "bytes": .integer(outcome.bytes), "bytes_before": .integer(outcome.bytesBefore),
                ]
            }
            print(
                JSON.object([
                    "output": .string(output), "method": .string(method), "projections": .array(rows),
                    "left": .array(left.map { ["path": .string($0.path), "reason": .string($0.reason)] }),
                    "bytes": .integer(after), "bytes_before": .integer(before),
                ]).text())
            return
        }
        print("saved to \(output): \(to), group size \(group), \(method == "gptq" ? "GPTQ" : "round to nearest")")
        print("projection                   count     weight error       output error         with RTN")
        var names: [String] = []
        for outcome in outcomes {
            let name = Self.leaf(outcome.path)
            if !names.contains(name) { names.append(name) }
        }
        for name in names {
            let matching = outcomes.filter { Self.leaf($0.path) == name }
            func share(_ value: (GroupQuantizer.Outcome) -> Double?) -> String {
                let values = matching.compactMap(value)
                guard !values.isEmpty else { return "–".padding(toLength: 8, withPad: " ", startingAt: 0) }
                return String(format: "%6.2f %%", values.reduce(0, +) / Double(values.count) * 100)
            }
            let padded = name.padding(toLength: 24, withPad: " ", startingAt: 0)
            print(
                "  \(padded)\(String(format: "%8d", matching.count))          \(share(\.weightError))           \(share(\.outputError))         \(share(\.nearestOutputError))"
            )
        }
        if let first = left.first {
            print("not quantized: \(left.count) (\(first.path): \(first.reason))")
        }
        print("weights: \(Console.bytes(before)) → \(Console.bytes(after))")
    }

    /// The last two components of a path, without layer numbers.
    static func leaf(_ path: String) -> String {
        let parts = path.split(separator: ".").map(String.init)
        return parts.filter { Int($0) == nil }.suffix(2).joined(separator: ".")
    }
}
