import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import TorchNN
import Training

struct MergeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "merge",
        abstract: "Merge an adapter into its base model's weights.",
        discussion: """
            peft merge my-adapter --output my-model
            peft merge my-adapter --to gguf-q8_0 --output my-model.gguf

            Writes a standalone model that other tools can load, and prints the drift: the difference between the logits
            of the merged model and those of the unmerged adapter, for each data type, beside the difference that
            rounding to that type makes alone. An nf4, fp4 or int8 base is dequantized, merged and stored unquantized;
            --requantize quantizes it again, which loses part of the delta (the drift says how much). QA-LoRA only
            changes the zero points of a quantized base, which stays quantized.
            """)

    @Argument(help: "Adapter folder.") var adapter: String
    @OptionGroup var model: ModelOptions
    @Option(
        name: .shortAndLong, help: ArgumentHelp("Output folder, or .gguf file, for the model.", valueName: "folder"))
    var output: String
    @Option(
        help:
            "Output format: folder (Hugging Face layout), or for llama.cpp gguf, \(GGUFTarget.names.joined(separator: ", "))."
    )
    var to = "folder"
    @Option(help: "Data type of the stored weights: float32, bfloat16 or float16 (default: the base model's).")
    var dtype: String?
    @Option(
        help: """
            Data type of the zero points after merging QA-LoRA: float32, float16, or rounded to integers, as other \
            loaders require (default: float16, with rounded ones stored too).
            """) var zeros: String?
    @Flag(help: "Quantize the merged projections to the base's format again (nf4, fp4 or int8).")
    var requantize = false
    @Option(help: ArgumentHelp("Data to measure the drift on (default: built-in sentences).", valueName: "file"))
    var data: String?
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit = 16
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "Print the result as JSON.") var json = false

    private static let types: [DType] = [.float32, .bfloat16, .float16]

    func run() throws {
        let device = try model.prepare()
        let stored = try dtype.map { name -> DType in
            guard let type = DType(rawValue: name.lowercased()), Self.types.contains(type) else {
                throw UsageError("unknown --dtype '\(name)'", remedy: "use one of float32, bfloat16, float16")
            }
            return type
        }
        let file = try GGUFTarget.type(to, usual: .f16)
        guard file != nil || to.lowercased() == "folder" else {
            throw UsageError(
                "unknown --to '\(to)'", remedy: "use one of folder, \(GGUFTarget.names.joined(separator: ", "))")
        }
        guard file == nil || dtype == nil && !requantize else {
            throw UsageError(
                "--to \(to) sets the weight format and cannot be used with --dtype or --requantize",
                remedy: "remove one of them")
        }
        let zeroTypes: [String: DType?] = ["float32": .float32, "float16": .float16, "rounded": nil]
        let zeroName = (zeros ?? "float16").lowercased()
        guard let zeroType = zeroTypes[zeroName] else {
            throw UsageError("unknown --zeros '\(zeroName)'", remedy: "use one of float32, float16, rounded")
        }
        let folder = try GGUFTarget.output(output, as: file)
        let adapted = try AdaptedModel(model, adapter: adapter, merge: false)
        guard let attached = adapted.adapter else { return }
        try adapted.model.requireFiniteWeights()
        let batches = try SampleRows.batches(
            data, templates, limit: limit, model: adapted.model, tokenizer: adapted.tokenizer, record: adapted.record,
            device: device)
        let isRounded = adapted.model.hasRoundedWeights
        guard isRounded || !requantize else {
            throw PEFTError(
                "--requantize requires an nf4, fp4 or int8 base model",
                remedy: "remove it, or set the base's format with --weights")
        }
        try withTorchErrors { adapted.model.upcastVocabulary() }
        if !requantize { try withTorchErrors { try adapted.model.upcastWeights(groups: adapted.folder.isGGUF) } }
        // Group-quantized projections stay quantized and have no other format to compare with.
        let staysQuantized = adapted.model.namedModules().contains {
            ($0.module as? Linear)?.weight.isQuantized == true
        }
        let logits = try file.map { _ in try MergeDrift.logits(of: adapted.model, on: batches) }
        let drifts = try MergeDrift.merging(
            attached, on: batches, types: requantize ? [.float32] : Self.types,
            storages: staysQuantized ? [] : WeightStorage.quantizers)
        let hasZeros = adapted.model.hasFloatZeroPoints
        guard hasZeros || zeros == nil else {
            throw PEFTError(
                "--zeros has no effect: merging \(attached.choice.label) does not change zero points",
                remedy: "remove it; it applies to QA-LoRA over a group-quantized base")
        }
        adapted.model.storeZeroPoints(as: zeroType)
        let storedType = try adapted.folder.storedType() ?? .float32
        let type = stored ?? (Self.types.contains(storedType) ? storedType : .float32)
        // The generation settings are part of the model.
        let settings = adapted.folder.url.appendingPathComponent("generation_config.json")
        let more = FileManager.default.fileExists(atPath: settings.path) ? [FolderFile(copyOf: settings)] : []
        var fileDrift: MergeDrift?
        if let file, let logits {
            try GGUFTarget.write(adapted.model, tokenizer: adapted.tokenizerFolder, as: file, to: folder)
            fileDrift = try GGUFTarget.drift(of: folder, as: file, from: logits, on: batches)
        } else {
            try AtomicFile.writeFolder(folder, replacing: false) { folder in
                try adapted.model.write(
                    into: folder, copying: Tokenizer.files(in: adapted.tokenizerFolder) + more, dtype: type)
                try adapted.record?.write(into: folder)
            }
        }
        let storedName = file.map { "GGUF \($0.name)" } ?? type.rawValue
        if json {
            // JSON has no infinity.
            func number(_ value: Double) -> JSON { value.isFinite ? .number(value) : .null }
            let rows = drifts.map { drift -> JSON in
                [
                    "dtype": .string(drift.dtype), "largest": number(drift.largest), "mean": number(drift.mean),
                    "agreement": .number(drift.agreement), "storing": number(drift.storing),
                ]
            }
            print(
                JSON.object([
                    "output": .string(output), "adapter": .string(attached.choice.label),
                    "dtype": .string(storedName), "zeros": hasZeros ? .string(zeroName) : .null,
                    "drift": .array(rows), "file": fileDrift.map(GGUFTarget.json) ?? .null,
                ]).text())
            return
        }
        let kind = hasZeros ? "zeros \(zeroName)" : storedName
        print(
            "\(attached.choice.label) merged, saved to \(output) as \(storedName)\(hasZeros ? ", zero points \(zeroName)" : "")"
        )
        print("drift of the logits    maximum       mean    same argmax  rounding alone")
        for drift in drifts {
            let name = drift.dtype.padding(toLength: 20, withPad: " ", startingAt: 0)
            let mark =
                drift.dtype == kind || hasZeros && zeroName == "float32" && drift.dtype == storedName
                ? "  (this file)" : ""
            print(
                String(
                    format: "  %@ %9.2e  %9.2e  %9.1f %%       %9.2e%@", name, drift.largest, drift.mean,
                    drift.agreement * 100, drift.storing, mark))
        }
        if let fileDrift { print(GGUFTarget.line(fileDrift, from: "the adapter's")) }
    }
}
