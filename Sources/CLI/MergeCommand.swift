import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Torch
import TorchNN
import Training

struct MergeCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "merge",
        abstract: "Work an adapter into its model's weights: a stand-alone model that other tools load.",
        discussion: """
            peft merge my-adapter --output my-model
            peft merge my-adapter --to gguf-q8_0 --output my-model.gguf

            Printed is the drift: how far the merged model's scores are from those of the adapter beside the weights,
            for each type that the weights of both may be stored in; and what storing in that type does by itself.
            An adapter over a base that is kept as nf4, fp4 or int8 is merged into the numbers that those mean, and the model
            is written as numbers; --requantize rounds them again, which loses part of what was learned (the drift says).
            A QA-LoRA moves the zeros of a quantised base and leaves it as small as it is.
            """)

    @Argument(help: "An adapter's folder.") var adapter: String
    @OptionGroup var model: ModelOptions
    @Option(name: .shortAndLong, help: ArgumentHelp("Folder for the model.", valueName: "folder")) var output: String
    @Option(
        help: "folder (Hugging Face's layout), or \(GGUFTarget.names.joined(separator: ", ")) for llama.cpp (folder)."
    )
    var to = "folder"
    @Option(help: "Type of the stored weights: float32, bfloat16 or float16 (the model's own).") var dtype: String?
    @Option(
        help: """
            How a QA-LoRA's zeros are stored in a base that is quantised in groups: float32, float16 or rounded, which \
            other readers need (float16, with rounded ones beside them).
            """) var zeros: String?
    @Flag(help: "Store the merged projections as the base keeps them (nf4, fp4, int8), not as numbers.")
    var requantize = false
    @Option(help: ArgumentHelp("Rows that the drift is measured on (a few sentences).", valueName: "file"))
    var data: String?
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit = 16
    @OptionGroup var templates: TemplateOptions
    @Flag(help: "Print the result as JSON.") var json = false

    private static let types: [DType] = [.float32, .bfloat16, .float16]

    func run() throws {
        let device = try model.prepare()
        let stored = try dtype.map { name -> DType in
            guard let type = DType(rawValue: name.lowercased()), Self.types.contains(type) else {
                throw UsageError("--dtype is '\(name)'", remedy: "there are float32, bfloat16 and float16")
            }
            return type
        }
        let file = try GGUFTarget.type(to, usual: .f16)
        guard file != nil || to.lowercased() == "folder" else {
            throw UsageError(
                "--to is '\(to)'", remedy: "there are folder, \(GGUFTarget.names.joined(separator: ", "))")
        }
        guard file == nil || dtype == nil && !requantize else {
            throw UsageError(
                "--to \(to) says how weights are stored, and --dtype or --requantize does", remedy: "leave one out")
        }
        let zeroTypes: [String: DType?] = ["float32": .float32, "float16": .float16, "rounded": nil]
        let zeroName = (zeros ?? "float16").lowercased()
        guard let zeroType = zeroTypes[zeroName] else {
            throw UsageError("--zeros is '\(zeroName)'", remedy: "there are float32, float16 and rounded")
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
                "--requantize is given, and the base is not kept as nf4, fp4 or int8",
                remedy: "leave it out, or name how the base is kept with --weights")
        }
        try withTorchErrors { adapted.model.widenVocabulary() }
        if !requantize { try withTorchErrors { try adapted.model.widenWeights(groups: adapted.folder.isGGUF) } }
        // What stays on its own grid has no other forms to compare with.
        let staysQuantised = adapted.model.namedModules().contains {
            ($0.module as? Linear)?.weight.isQuantized == true
        }
        let drifts = try MergeDrift.merging(
            attached, on: batches, types: requantize ? [.float32] : Self.types,
            storages: staysQuantised ? [] : try ["nf4", "fp4", "int8"].map { try WeightStorage($0) })
        let hasZeros = adapted.model.hasRealZeros
        guard hasZeros || zeros == nil else {
            throw PEFTError(
                "--zeros is given, and merging \(attached.choice.label) moves no zeros",
                remedy: "leave it out; a QA-LoRA over a base quantised in groups does")
        }
        adapted.model.storeZeros(as: zeroType)
        let own = try adapted.folder.storedType() ?? .float32
        let type = stored ?? (Self.types.contains(own) ? own : .float32)
        // How a model generates belongs to it.
        let settings = adapted.folder.url.appendingPathComponent("generation_config.json")
        let more = FileManager.default.fileExists(atPath: settings.path) ? [FolderFile(copyOf: settings)] : []
        if let file {
            try GGUFTarget.write(adapted.model, tokenizer: adapted.tokenizerFolder, as: file, to: folder)
        } else {
            try AtomicFile.writeFolder(folder, replacing: false) { folder in
                try adapted.model.write(
                    into: folder, copying: Tokenizer.files(in: adapted.tokenizerFolder) + more, dtype: type)
                try adapted.record?.write(into: folder)
            }
        }
        let storedName = file.map { "GGUF \($0.name)" } ?? type.rawValue
        if json {
            // JSON has no number for what overflows.
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
                    "drift": .array(rows),
                ]).text())
            return
        }
        let kind = hasZeros ? "zeros \(zeroName)" : storedName
        print(
            "\(attached.choice.label) merged into \(output), stored as \(storedName)\(hasZeros ? ", \(kind)" : "")"
        )
        print("drift of the scores    largest       mean    same choice   storing alone")
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
    }
}
