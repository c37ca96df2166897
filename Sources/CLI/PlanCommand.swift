import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Estimate trainable parameters and training memory without loading weights.",
        discussion: """
            peft plan google/flan-t5-base --methods lora,ia3,full --batch-size 8 --prompt-tokens 512
            peft plan config.json --method lora --rank 32 --targets q,v
            peft plan google/flan-t5-base --methods all
            peft plan --data train.jsonl --prompt 'Summarize: {dialogue}' --target '{summary}'

            A config.json without weights is sufficient. Parameter counts are exact; memory is an estimate of the peak
            resident memory of peft train on the CPU.
            """)

    @Argument(
        help: ArgumentHelp(
            "Model folder, Hugging Face Hub name or config.json (default: tiny-t5).", valueName: "model"))
    var path: String?
    @Option(name: [.customLong("model"), .short], help: ArgumentHelp("The model, as an option.", valueName: "model"))
    var modelOption: String?
    @Option(help: "Fine-tuning method; see peft methods (default: lora).") var method: String?
    @Option(help: ArgumentHelp("Comma-separated methods, such as lora(rank=8),full.", valueName: "list"))
    var methods: String?
    @OptionGroup var options: MethodOptions
    @Option(help: ArgumentHelp("Examples per micro-batch.", valueName: "n"))
    var batchSize = TrainingConfiguration().batchSize
    @Option(help: ArgumentHelp("Gradient-accumulation steps.", valueName: "n"))
    var accumulate = TrainingConfiguration().accumulation
    @Option(help: ArgumentHelp(OptimizerHelp.text, valueName: "name"))
    var optimizer = TrainingConfiguration().optimizer.rawValue
    @Flag(help: "Plan for training with --checkpoint-activations.") var checkpointActivations = false
    @Flag(help: "Plan for training with --offload-activations.") var offloadActivations = false
    @Flag(help: "Plan for training with --page-optimizer.") var pageOptimizer = false
    @Option(help: ArgumentHelp("Tokens per prompt (default: 512).", valueName: "tokens")) var promptTokens: Int?
    @Option(help: ArgumentHelp("Tokens per target (default: 128).", valueName: "tokens")) var targetTokens: Int?
    @Option(
        help: ArgumentHelp(
            "Data whose lengths to plan for, in place of --prompt-tokens and --target-tokens.", valueName: "file"))
    var data: [String] = []
    @Option(help: ArgumentHelp("Maximum number of examples.", valueName: "n")) var limit: Int?
    @OptionGroup var formats: WeightFormatOptions
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Flag(help: "Print the result as JSON.") var json = false

    private var model: String { path ?? modelOption ?? ModelLocator.embedded }

    func run() throws {
        guard path == nil || modelOption == nil else {
            throw UsageError("the model is given twice: '\(path ?? "")' and --model", remedy: "use one of them")
        }
        var settings = TrainingConfiguration()
        (settings.batchSize, settings.accumulation) = (batchSize, accumulate)
        try checkingOptions { try settings.setOptimizer(optimizer) }
        settings.memory.checkpointsActivations = checkpointActivations
        settings.memory.offloadsActivations = offloadActivations
        settings.memory.pagesOptimizer = pageOptimizer
        try checkingOptions { try settings.validate() }
        let (storage, embeddingStorage) = try formats.storages()
        var source = try PlanSource(model, weights: storage, embeddings: embeddingStorage)
        guard let process = try ProcessBaseline.measure() else {
            throw PEFTError("can't measure the memory of a process on this system", remedy: "use Linux")
        }
        let before = Runtime.residentMemory ?? process
        let tokenizer = try source.tokenizer()
        let batch = try batch(&source, tokenizer, settings)
        // The head of an encoder, and so its trainable parameters, depends on the data.
        let outline = ModelOutline(try source.outline())
        let choices = try choices(for: outline)
        for (choice, _) in choices { RunWarnings.show(RunWarnings.layers(choice, outline)) }
        let baseline = process + max(0, (Runtime.residentMemory ?? before) - before)
        let plans = try choices.map { choice, weights in
            let planned = weights.map(source.replacing) ?? source.with(defaultWeights: choice.baseStorage)
            let base = PlannedBase(
                fileBytes: planned.folder?.weightBytes ?? 0, usedVocabulary: tokenizer?.vocabularySize,
                convertsWeights: planned.storage ?? .float32 != .float32, outline: planned.outline)
            return try TrainingPlan(choice, on: base, batch: batch, configuration: settings, baseline: baseline)
        }
        let report = PlanReport(outline: outline, batch: batch, configuration: settings, plans: plans)
        print(json ? report.json.text() : report.text(bytes: Console.bytes, grouped: Console.grouped))
    }

    /// The methods to plan, checked against the model; with `all`, methods that don't fit are skipped with a note.
    private func choices(for outline: ModelOutline) throws -> [(MethodChoice, WeightStorage?)] {
        guard method == nil || methods == nil else {
            throw UsageError("--method and --methods are mutually exclusive", remedy: "use one of them")
        }
        guard let methods else {
            let choice = try options.choice(method ?? "lora")
            _ = try choice.plan(for: outline)
            return [(choice, nil)]
        }
        let isAll = MethodOptions.namesAll(methods)
        let rows = try options.list(methods).compactMap { row in
            try row.choice.map { ($0, try row.weights.map(storage)) }
        }
        let chosen = try rows.filter { choice, _ in
            do {
                _ = try choice.plan(for: outline)
                return true
            } catch let error as PEFTError where isAll {
                Console.note("\(choice.method.name) skipped: \(error.description)")
                return false
            }
        }
        guard !chosen.isEmpty else {
            throw UsageError("--methods \(methods) has no method that trains", remedy: "add a method such as lora")
        }
        return chosen
    }

    private func storage(_ rounding: WeightRounding) throws -> WeightStorage {
        guard let storage = rounding.storage else {
            throw UsageError(
                "peft plan cannot quantize to \(rounding.name) on the fly",
                remedy: "quantize the model with peft quantize first, and pass its folder as --model")
        }
        return storage
    }

    private func batch(_ source: inout PlanSource, _ tokenizer: Tokenizer?, _ settings: TrainingConfiguration) throws
        -> PlannedBatch
    {
        guard !data.isEmpty else {
            guard templates.prompt == nil, templates.target == nil else {
                throw UsageError(
                    "--prompt and --target require --data",
                    remedy: "add --data, or use --prompt-tokens and --target-tokens")
            }
            return try PlannedBatch(rows: batchSize, prompt: promptTokens ?? 512, target: targetTokens ?? 128)
        }
        guard promptTokens == nil, targetTokens == nil else {
            throw UsageError(
                "--data cannot be used with --prompt-tokens or --target-tokens", remedy: "use one or the other")
        }
        guard let tokenizer, let folder = source.folder?.url else {
            throw PEFTError(
                "\(model) has no tokenizer, which --data requires",
                remedy: "use --prompt-tokens and --target-tokens instead")
        }
        let reading = try templates.settings(chat).recognized(data, generates: source.outline().generates)
        let format = try reading.exampleFormat(of: data, tokenizerFolder: folder)
        let examples = try format.read(data, limit: limit)
        if case .texts(let texts) = examples { try source.choose(reading.task, texts) }
        let prepared = try examples.prepared(
            tokenizer, folder: folder, for: source.outline(), maxInputTokens: reading.inputLimit())
        return try PlannedBatch(prepared.encoded().examples, configuration: settings)
    }
}

/// A model folder, or a `config.json` alone.
struct PlanSource {
    private(set) var folder: ModelFolder?
    private let file: URL?

    /// The base's weight format; `nil` for as stored.
    private(set) var storage: WeightStorage?
    let embeddings: WeightStorage?

    init(_ name: String, weights storage: WeightStorage?, embeddings: WeightStorage?) throws {
        (self.storage, self.embeddings) = (storage, embeddings)
        let url = URL(fileURLWithPath: NSString(string: name).expandingTildeInPath)
        var isFolder: ObjCBool = false
        let isFile =
            FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && !isFolder.boolValue
            && !GGUFHeader.isName(url)
        folder =
            isFile
            ? nil
            : try HubFetch.model(name, needing: .description).with(weights: storage)
                .with(embeddings: embeddings)
        file = isFile ? url : nil
    }

    func outline() throws -> any LanguageModel {
        if let folder { return try folder.outline() }
        guard let file else { throw UsageError("no model was given", remedy: "add --model") }
        let json = try JSON.read(file, tagsInfinity: true)
        let model = try ModelRegistry.outline(json, file: file.path)
        storage?.apply(to: model)
        VocabularyStorage(embeddings, keepsStored: storage ?? .float32 != .float32)
            .apply(to: model) { _ in DType(configuration: json) }
        return model
    }

    /// The same base in another weight format, unless one was chosen or the base is already quantized.
    func with(defaultWeights storage: WeightStorage?) -> PlanSource {
        guard let storage, self.storage == nil, folder?.isQuantized != true else { return self }
        var copy = self
        (copy.storage, copy.folder) = (storage, folder?.with(weights: storage))
        return copy
    }

    /// The same base in the given weight format.
    func replacing(_ storage: WeightStorage) -> PlanSource {
        var copy = self
        (copy.storage, copy.folder) = (storage, folder?.with(weights: storage))
        return copy
    }

    mutating func choose(_ task: TaskChoice, _ rows: [Example]) throws {
        folder = try folder.map { $0.with(try task.head(for: $0, rows: rows)) }
    }

    /// `nil` for a configuration without a folder, or a folder without a tokenizer.
    func tokenizer() throws -> Tokenizer? {
        guard let folder, try !Tokenizer.files(in: folder.url).isEmpty else { return nil }
        return try Tokenizer.load(folder: folder.url)
    }
}
