import ArgumentParser
import Foundation
import LanguageModels
import Support
import Tokenizers
import Torch
import TorchNN
import Training

struct QuantizeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "quantize",
        abstract: "Store a model's projections in a few bits, for readers of GPTQ, bitsandbytes or llama.cpp.",
        discussion: """
            peft quantize --model my-model --to nf4 --double --output my-model-nf4
            peft quantize --model my-model --to int4 --group 32 --calibration text.txt --output my-model-int4
            peft quantize --model my-model --to gguf-q4_0 --output my-model.gguf

            nf4, fp4 and int8 are bitsandbytes' 4-bit blocks and its int8 with a scale for each output. The others are
            integers in groups of inputs, GPTQ's format.
            With sample text, GPTQ makes up for what rounding a column loses in the columns after it; without, each number
            is rounded to the nearest. Printed is the error of each kind of projection: of the weights, and with sample
            text of what they make of it, beside that of rounding to the nearest. Embeddings, norms and the output layer
            stay as they are, or become bf16 with --embedding-weights bf16. gguf-q8_0, gguf-q4_0, gguf-f16 and others are llama.cpp's files, with the tokenizer.
            """)

    @OptionGroup var model: ModelOptions
    @Option(name: .shortAndLong, help: ArgumentHelp("Folder for the model.", valueName: "folder")) var output: String
    @Option(
        help: """
            nf4, fp4 or int8 (bitsandbytes); int2, int3, int4 or int8-groups (GPTQ); \
            \(GGUFTarget.names.joined(separator: ", ")) (llama.cpp).
            """) var to = "int4"
    @Flag(help: "Round the scales of nf4's or fp4's blocks too.") var double = false
    @Option(help: ArgumentHelp("Numbers of nf4 or fp4 that share a scale.", valueName: "numbers")) var block = 64
    @Option(
        help: ArgumentHelp("Inputs that share a scale and a zero; −1 for all of an output's.", valueName: "inputs"))
    var group = 128
    @Flag(help: "Symmetric quantization, required by some loaders.") var symmetric = false
    @Option(help: "gptq or rtn, to the nearest (gptq with sample text).") var method: String?
    @Option(
        help: ArgumentHelp("Sample text for GPTQ: lines, or rows with --prompt and --target.", valueName: "file"))
    var calibration: String?
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit = 128
    @Option(help: "Share of its mean diagonal that is added to a Hessian.") var damping = 0.01
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "Print the result as JSON.") var json = false

    private static let formats = ["int2": 2, "int3": 3, "int4": 4, "int8-groups": 8]

    func run() throws {
        try checkEmbeddings()
        if let type = try GGUFTarget.type(to, usual: .q8_0) { return try writeGGUF(type) }
        if let storage = try storage() { return try keep(storage) }
        guard let bits = Self.formats[to.lowercased()] else {
            throw UsageError(
                "--to is '\(to)'",
                remedy:
                    "there are nf4, fp4, int8, \((Self.formats.keys.sorted() + GGUFTarget.names).joined(separator: ", "))"
            )
        }
        guard group == -1 || group > 0 && group.isMultiple(of: 32) else {
            throw UsageError("--group is \(group)", remedy: "it has to be a multiple of 32, or −1 for whole columns")
        }
        let method = method?.lowercased() ?? (calibration == nil ? "rtn" : "gptq")
        guard ["gptq", "rtn"].contains(method) else {
            throw UsageError("--method is '\(method)'", remedy: "there are gptq and rtn")
        }
        guard method == "rtn" || calibration != nil else {
            throw UsageError("GPTQ needs sample text", remedy: "give --calibration FILE, or --method rtn")
        }
        guard damping > 0, damping.isFinite else {
            throw UsageError("--damping is \(damping)", remedy: "it has to be above 0; 0.01 is usual")
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
        let outcomes: [GroupQuantizer.Outcome]
        if method == "gptq", let calibration {
            let batches = try samples(calibration, for: loaded, tokenizer)
            outcomes = try quantizer.calibrate(loaded) {
                for batch in batches {
                    _ = loaded.writes ? loaded.lossSum(batch, labelSmoothing: 0) : loaded.logits(batch)
                    try checkTorchErrors()
                }
            } progress: { outcome in
                if !json, !Console.isQuiet { Console.note("\(outcome.path) done") }
            }
        } else {
            outcomes = try quantizer.round(loaded)
        }
        let stored = try storedType(folder)
        let settings = folder.url.appendingPathComponent("generation_config.json")
        let more = FileManager.default.fileExists(atPath: settings.path) ? [FolderFile(copyOf: settings)] : []
        try loaded.save(
            to: target, copying: Tokenizer.files(in: folder.url) + more, dtype: stored, replacing: false)
        report(
            outcomes, left: left, method: method, before: folder.weightBytes,
            after: try ModelFolder(target).weightBytes)
    }

    /// Embeddings are rounded by a format that holds such, or stored as bf16 with all else that isn't rounded.
    private func checkEmbeddings() throws {
        guard let name = model.embeddingWeights else { return }
        let storage = try WeightStorage(name)
        guard try GGUFTarget.type(to, usual: .q8_0) == nil else {
            throw UsageError(
                "--to \(to) says how embeddings are stored, and --embedding-weights does", remedy: "leave one out")
        }
        guard storage == .float32 || storage == .bfloat16 else {
            throw UsageError(
                "a folder that others read can't hold embeddings as \(storage.name)",
                remedy: "use --embedding-weights bf16 here, and \(storage.name) where the folder is used")
        }
    }

    /// The type of what isn't rounded.
    func storedType(_ folder: ModelFolder) throws -> DType {
        switch folder.embeddingStorage {
        case .bfloat16: .bfloat16
        case .float32: .float32
        default: try folder.storedType() ?? .float32
        }
    }

    /// Whole rows of tokens, as the model reads them.
    private func samples(_ file: String, for model: any LanguageModel, _ tokenizer: Tokenizer) throws
        -> [TrainingBatch]
    {
        var templates = templates
        if templates.prompt == nil, templates.target == nil {
            // Lines of text: what a model writes may not be empty, what it reads may.
            if model.writes { templates.target = "{text}" } else { templates.prompt = "{text}" }
        }
        if templates.prompt == nil { templates.prompt = "" }
        let rows = try Rows.read(file, templates.rows(needsTarget: false), limit: limit)
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
        guard !encoded.isEmpty else { throw PEFTError("\(file) has no text", remedy: "name a file with rows") }
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
        print("\(output): \(to) in groups of \(group), \(method == "gptq" ? "GPTQ" : "to the nearest")")
        print("projection                  number   of the weights   of their outputs   to the nearest")
        var names: [String] = []
        for outcome in outcomes {
            let name = Self.leaf(outcome.path)
            if !names.contains(name) { names.append(name) }
        }
        for name in names {
            let own = outcomes.filter { Self.leaf($0.path) == name }
            func share(_ value: (GroupQuantizer.Outcome) -> Double?) -> String {
                let values = own.compactMap(value)
                guard !values.isEmpty else { return "–".padding(toLength: 8, withPad: " ", startingAt: 0) }
                return String(format: "%6.2f %%", values.reduce(0, +) / Double(values.count) * 100)
            }
            let padded = name.padding(toLength: 24, withPad: " ", startingAt: 0)
            print(
                "  \(padded)\(String(format: "%8d", own.count))          \(share(\.weightError))           \(share(\.outputError))         \(share(\.nearestOutputError))"
            )
        }
        if let first = left.first {
            print("left as they are: \(left.count) (\(first.path): \(first.reason))")
        }
        print("weights: \(Console.bytes(before)) → \(Console.bytes(after))")
    }

    /// What a path is named without its layer.
    static func leaf(_ path: String) -> String {
        let parts = path.split(separator: ".").map(String.init)
        return parts.filter { Int($0) == nil }.suffix(2).joined(separator: ".")
    }
}
