import ArgumentParser
import Experiments
import Foundation
import LanguageModels
import PEFT
import Support
import Tokenizers
import Torch
import Training

struct PlanCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "plan",
        abstract: "Tell how many parameters methods would train and how much memory that takes, without weights.",
        discussion: """
            peft plan google/flan-t5-base --methods lora,ia3,full --batch-size 8 --prompt-tokens 512
            peft plan config.json --method lora --rank 32 --targets q,v
            peft plan google/flan-t5-base --methods all
            peft plan --data train.jsonl --prompt 'Summarize: {dialogue}' --target '{summary}'

            A configuration without weights is enough. The counts of parameters are exact. The memory is an estimate
            of the peak of resident memory of peft train on the CPU.
            """)

    @Argument(help: ArgumentHelp("A model's folder or name (tiny-t5), or its config.json.", valueName: "model"))
    var path: String?
    @Option(name: [.customLong("model"), .short], help: ArgumentHelp("The same, as an option.", valueName: "model"))
    var modelOption: String?
    @Option(help: "A method.") var method: String?
    @Option(help: ArgumentHelp("Methods, comma-separated, such as lora(rank=8),full.", valueName: "list"))
    var methods: String?
    @Option(help: ArgumentHelp("Examples per micro-batch.", valueName: "rows"))
    var batchSize = TrainingConfiguration().batchSize
    @Option(help: ArgumentHelp("Gradient-accumulation steps.", valueName: "n"))
    var accumulate = TrainingConfiguration().accumulation
    @Option(help: "adamw, adamw8bit or adafactor.") var optimizer = TrainingConfiguration().optimizer.rawValue
    @Flag(help: "Plan for training with --checkpoint-activations.") var checkpointActivations = false
    @Flag(help: "Plan for training with --offload-activations.") var offloadActivations = false
    @Flag(help: "Plan for training with --page-optimizer.") var pageOptimizer = false
    @Option(help: ArgumentHelp("Tokens of each prompt (512).", valueName: "tokens")) var promptTokens: Int?
    @Option(help: ArgumentHelp("Tokens of each target (128).", valueName: "tokens")) var targetTokens: Int?
    @Option(help: ArgumentHelp("Rows whose lengths count, instead of --prompt-tokens.", valueName: "file"))
    var data: [String] = []
    @Option(help: ArgumentHelp("Use only the first rows.", valueName: "rows")) var limit: Int?
    @Option(
        help: ArgumentHelp(
            "Weight format of the base's projections: \(WeightStorage.names.joined(separator: ", ")) (as stored, in fp32).",
            valueName: "format"))
    var weights: String?
    @Option(
        help: ArgumentHelp(
            "Weight format of the embedding table and the output layer (16-bit ones as stored beside quantized projections, else fp32).",
            valueName: "format"))
    var embeddingWeights: String?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Flag(help: "Print the result as JSON.") var json = false

    private var model: String { path ?? modelOption ?? ModelLocator.embedded }

    func run() throws {
        guard path == nil || modelOption == nil else {
            throw UsageError("the model was named twice: '\(path ?? "")' and --model", remedy: "leave one out")
        }
        var settings = TrainingConfiguration()
        (settings.batchSize, settings.accumulation) = (batchSize, accumulate)
        guard let kind = TrainingConfiguration.OptimizerKind(rawValue: optimizer.lowercased()) else {
            let kinds = TrainingConfiguration.OptimizerKind.allCases.map(\.rawValue)
            throw UsageError("unknown optimizer '\(optimizer)'", remedy: "there are \(kinds.joined(separator: ", "))")
        }
        settings.optimizer = kind
        settings.memory.checkpointsActivations = checkpointActivations
        settings.memory.offloadsActivations = offloadActivations
        settings.memory.pagesOptimizer = pageOptimizer
        try checkingOptions { try settings.validate() }
        var source = try PlanSource(
            model, keeping: weights.map { try WeightStorage($0) },
            embeddings: embeddingWeights.map { try WeightStorage($0) })
        guard let process = try ProcessBaseline.measure() else {
            throw PEFTError("the system doesn't tell how much memory a process takes", remedy: "use Linux")
        }
        let before = Runtime.residentMemory ?? process
        let tokenizer = try source.tokenizer()
        let batch = try batch(&source, tokenizer, settings)
        // What a model that only reads has to train depends on the rows.
        let outline = ModelOutline(try source.outline())
        let choices = try choices(for: outline)
        for (choice, _) in choices { RunWarnings.show(RunWarnings.layers(choice, outline)) }
        let baseline = process + max(0, (Runtime.residentMemory ?? before) - before)
        let plans = try choices.map { choice, weights in
            let own = weights.map(source.replacing) ?? source.keeping(choice.baseStorage)
            let base = PlannedBase(
                fileBytes: own.folder?.weightBytes ?? 0, usedVocabulary: tokenizer?.vocabularySize,
                keepsOtherwise: own.storage ?? .float32 != .float32, outline: own.outline)
            return try TrainingPlan(choice, on: base, batch: batch, configuration: settings, baseline: baseline)
        }
        let report = PlanReport(outline: outline, batch: batch, configuration: settings, plans: plans)
        print(json ? report.json.text() : report.text(bytes: Console.bytes, grouped: Console.grouped))
    }

    /// The methods to plan, each known to fit the model; with `all` those that don't are named and left out.
    private func choices(for outline: ModelOutline) throws -> [(MethodChoice, WeightStorage?)] {
        guard method == nil || methods == nil else {
            throw UsageError("--method and --methods were both given", remedy: "leave one out")
        }
        guard let methods else {
            let choice = try MethodArguments.choice(method ?? "lora")
            _ = try choice.plan(for: outline)
            return [(choice, nil)]
        }
        let isAll = MethodArguments.namesAll(methods)
        let rows = try MethodArguments.list(methods).compactMap { row in
            try row.choice.map { ($0, try row.weights.map(storage)) }
        }
        let chosen = try rows.filter { choice, _ in
            do {
                _ = try choice.plan(for: outline)
                return true
            } catch let error as PEFTError where isAll {
                Console.note("\(choice.method.name) is left out: \(error.description)")
                return false
            }
        }
        guard !chosen.isEmpty else {
            throw UsageError("--methods \(methods) has nothing that trains", remedy: "name a method such as lora")
        }
        return chosen
    }

    private func storage(_ rounding: WeightRounding) throws -> WeightStorage {
        guard case .storage(let storage) = rounding else {
            throw UsageError(
                "peft plan cannot quantize to \(rounding.name) on the fly",
                remedy: "make it with peft quantize and name its folder with --model")
        }
        return storage
    }

    private func batch(_ source: inout PlanSource, _ tokenizer: Tokenizer?, _ settings: TrainingConfiguration) throws
        -> PlannedBatch
    {
        guard !data.isEmpty else {
            guard templates.prompt == nil, templates.target == nil else {
                throw UsageError("templates were given without rows", remedy: "name a file with --data")
            }
            return try PlannedBatch(rows: batchSize, prompt: promptTokens ?? 512, target: targetTokens ?? 128)
        }
        guard promptTokens == nil, targetTokens == nil else {
            throw UsageError(
                "--data and lengths were both given", remedy: "leave --prompt-tokens and --target-tokens out")
        }
        guard let tokenizer else {
            throw PEFTError(
                "\(model) has no tokenizer for --data", remedy: "give --prompt-tokens and --target-tokens")
        }
        let templates = try templates.recognized(data, chat, writes: source.outline().writes)
        if let folder = source.folder, let chats = try chat.settings(templates, data: data, folder: folder.url) {
            let wrapped = try chat.wrapped(templates)
            let rows = try Rows.read(data, chats, wrapped?.prompt, wrapped?.target, limit: limit)
            let encoder = try chats.encoder(tokenizer, folder: folder.url, for: source.outline())
            return try PlannedBatch(encoder.encode(rows).examples, configuration: settings)
        }
        let rows = try Rows.read(data, templates.rows(), limit: limit)
        try source.choose(templates.choice(), rows)
        let encoder = try RowEncoder(
            tokenizer, for: source.outline(),
            maxInputTokens: templates.maxInput ?? TemplateOptions.defaultMaxInput)
        return try PlannedBatch(encoder.encode(rows).examples, configuration: settings)
    }
}

/// A model's folder, or its configuration alone.
private struct PlanSource {
    private(set) var folder: ModelFolder?
    private let file: URL?

    /// How the base is kept, where that isn't as it is stored.
    private(set) var storage: WeightStorage?
    let embeddings: WeightStorage?

    init(_ name: String, keeping storage: WeightStorage?, embeddings: WeightStorage?) throws {
        (self.storage, self.embeddings) = (storage, embeddings)
        let url = URL(fileURLWithPath: NSString(string: name).expandingTildeInPath)
        var isFolder: ObjCBool = false
        let isFile =
            FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder) && !isFolder.boolValue
            && !GGUFHeader.isName(url)
        folder =
            isFile
            ? nil
            : try HubFetch.model(name, needing: .description).keeping(storage)
                .keepingEmbeddings(embeddings)
        file = isFile ? url : nil
    }

    func outline() throws -> any LanguageModel {
        if let folder { return try folder.outline() }
        guard let file else { throw UsageError("no model was named", remedy: "name one with --model") }
        let json = try JSON.read(file)
        let model = try ModelRegistry.outline(json, file: file.path)
        storage?.apply(to: model)
        VocabularyStorage(embeddings, keepsStored: storage ?? .float32 != .float32)
            .apply(to: model) { _ in DType(configuration: json) }
        return model
    }

    /// The same base kept otherwise, where nothing was asked for and it isn't quantised already.
    func keeping(_ storage: WeightStorage?) -> PlanSource {
        guard let storage, self.storage == nil, folder?.isQuantized != true else { return self }
        var copy = self
        (copy.storage, copy.folder) = (storage, folder?.keeping(storage))
        return copy
    }

    /// The same base kept in a way that was asked for.
    func replacing(_ storage: WeightStorage) -> PlanSource {
        var copy = self
        (copy.storage, copy.folder) = (storage, folder?.keeping(storage))
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
