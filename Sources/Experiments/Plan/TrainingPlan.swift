import LanguageModels
import PEFT
import PEFTSupport
import Torch
import TorchNN
import Training

/// The examples of one micro-batch, as lengths in tokens.
public struct PlannedBatch: Sendable {
    package struct Row: Sendable, Equatable {
        /// Tokens of the prompt and of the target, end tokens included.
        package let prompt: Int, target: Int

        package init(prompt: Int, target: Int) { (self.prompt, self.target) = (prompt, target) }
    }

    package let rows: [Row]
    package var tokens: Int { rows.reduce(0) { $0 + $1.prompt + $1.target } }
    package var longestPrompt: Int { rows.map(\.prompt).max() ?? 0 }
    package var longestTarget: Int { rows.map(\.target).max() ?? 0 }

    /// A micro-batch of equally long examples.
    /// - Throws: ``PEFTError`` for a value outside 1 … 1000000.
    public init(rows count: Int, prompt: Int, target: Int) throws {
        for (name, value) in [("examples per batch", count), ("prompt tokens", prompt), ("target tokens", target)] {
            guard (1...1_000_000).contains(value) else {
                throw PEFTError("the number of \(name) must be 1 … 1000000 (got \(value))")
            }
        }
        rows = Array(repeating: Row(prompt: prompt, target: target), count: count)
    }

    /// The largest micro-batch of the first epoch of training on these examples.
    /// - Throws: ``PEFTError`` if there are no examples.
    public init(_ examples: [EncodedExample], configuration: TrainingConfiguration) throws {
        guard !examples.isEmpty, configuration.batchSize >= 1 else {
            throw PEFTError("there are no examples to plan for", remedy: "provide examples with --data")
        }
        var random = SeededRandom(seed: configuration.seed, stream: 0)
        var order = Array(examples.indices)
        random.shuffle(&order)
        let batches = stride(from: 0, to: order.count, by: configuration.batchSize).map { start in
            order[start..<min(start + configuration.batchSize, order.count)].map {
                Row(
                    prompt: examples[$0].input.count,
                    target: examples[$0].row.candidates.first?.count ?? examples[$0].target.count)
            }
        }
        rows =
            batches.max { $0.reduce(0) { $0 + $1.prompt + $1.target } < $1.reduce(0) { $0 + $1.prompt + $1.target } }
            ?? []
    }
}

/// The base model of a plan.
public struct PlannedBase {
    /// Creates the model without weights (meta device); each method is planned on a fresh one.
    package let outline: () throws -> any LanguageModel
    /// Bytes of the weight files; 0 if there are none, in which case fp32 is assumed.
    package let fileBytes: Int
    /// Vocabulary size of the tokenizer, if known: embedding rows beyond it are never read.
    package let usedVocabulary: Int?

    /// Whether projections are stored in another weight format than that of the files.
    package let convertsWeights: Bool

    /// Plans a training run on a model of the meta device, without weights.
    /// - Throws: ``PEFTError`` if the method doesn't fit the model.
    public init(
        fileBytes: Int, usedVocabulary: Int?, convertsWeights: Bool = false,
        outline: @escaping () throws -> any LanguageModel
    ) {
        (self.fileBytes, self.usedVocabulary, self.outline) = (fileBytes, usedVocabulary, outline)
        self.convertsWeights = convertsWeights
    }
}

/// The trainable parameters and the peak memory of training with a method on the CPU, planned without weights.
///
/// Parameters are counted exactly. The memory of activations, gradients and temporaries comes from two steps of the real
/// program on the meta device, whose log ``MemoryLedger`` analyzes. Memory that libtorch's kernels allocate internally is
/// not included.
public struct TrainingPlan: Sendable {
    /// The method.
    public let choice: MethodChoice
    /// Its parameter counts.
    public let summary: PlanSummary
    /// Estimated peak memory of a training step, by use.
    public let memory: MemoryLedger
    /// Bytes of the model's weights as stored in memory: fp32 unless quantized.
    public let weightBytes: Int
    /// Names of the formats that the weights are stored in.
    package let weightFormats: [String]
    /// The peak while loading weights that are not stored in fp32 and upcast.
    package let loadingBytes: Int

    /// The estimated peak of resident memory.
    public var totalBytes: Int { max(memory.total, loadingBytes) }
    package var timesWeights: Double { weightBytes > 0 ? Double(totalBytes) / Double(weightBytes) : 0 }
    /// Above this multiple of the weights, a plan names the largest term.
    package static let noteworthyTimes = 12.0
    package var isNoteworthy: Bool { timesWeights > Self.noteworthyTimes }

    /// - Parameters:
    ///   - choice: the method with its options.
    ///   - base: the model, without weights.
    ///   - batch: the lengths of a micro-batch.
    ///   - configuration: settings of the run.
    ///   - baseline: bytes of the process without a model.
    /// - Throws: ``PEFTError`` if the method doesn't fit the model.
    public init(
        _ choice: MethodChoice, on base: PlannedBase, batch: PlannedBatch, configuration: TrainingConfiguration,
        baseline: Int
    ) throws {
        try configuration.validate()
        let model = try base.outline()
        let outline = ModelOutline(model)
        let attachments = try choice.plan(for: outline)
        (self.choice, summary) = (choice, PlanSummary(attachments, outline: outline))
        (weightBytes, weightFormats) = (outline.weightBytes, outline.weightFormats)
        let log = try Self.steps(choice, on: model, batch: batch, configuration: configuration)
        var memory = MemoryLedger(log)
        memory.weights += Self.residentWeights(outline, attachments, base, batch: batch)
        memory.weights += Self.replacedWeights(choice, outline, attachments)
        memory.baseline = baseline
        self.memory = memory
        let isWidened = base.fileBytes > 0 && base.fileBytes < weightBytes
        if base.convertsWeights {
            // Each projection's pages are released before the next one is read.
            let largest = outline.linears.map { $0.inputs * $0.outputs }.max() ?? 0
            loadingBytes = weightBytes + largest * 8 + baseline
        } else {
            loadingBytes = isWidened ? base.fileBytes + weightBytes + baseline : 0
        }
    }

    /// Two steps: in the second, the heap is fragmented by the first.
    private static func steps(
        _ choice: MethodChoice, on model: any LanguageModel, batch: PlannedBatch, configuration: TrainingConfiguration
    ) throws -> MemoryLog {
        let rows = batch.rows.map { row in
            let text = Array(repeating: 0, count: row.prompt)
            return switch model.head.task {
            case .classification, .multiLabel, .regression: TrainingRow(input: text, target: [0])
            case .tokenClassification: TrainingRow(input: text, target: text)
            case .embeddings: TrainingRow(input: text, candidates: [Array(repeating: 0, count: row.target)])
            case .sequenceToSequence, .causalLM:
                TrainingRow(input: text, target: Array(repeating: 0, count: row.target))
            }
        }
        return try MemoryLog.record { mark in
            let adapter = try Adapter(choice, on: model)
            let hook = adapter.trainingHook()
            try configuration.checkOptimizer(for: adapter)
            configuration.freeze(adapter)
            mark(MemoryLedger.Mark.optimizer)
            let optimizer = configuration.makeOptimizer(adapter)
            for step in 0..<2 {
                for pass in 0..<min(2, configuration.accumulation) {
                    mark(MemoryLedger.Mark.forward)
                    let tokens = model.batch(rows, device: .meta)
                    let sum = DropoutScope.run(seed: 0, stream: UInt64(step)) {
                        ActivationCheckpointing.run(configuration.memory.activations) {
                            EmbeddingNoise.run(alpha: configuration.neftuneAlpha ?? 0) {
                                model.lossSum(tokens, labelSmoothing: configuration.labelSmoothing)
                                    / Double(max(1, tokens.targetCount))
                            }
                        }
                    }
                    let penalty = pass == 0 ? hook?.penalty() : nil
                    mark(MemoryLedger.Mark.backward)
                    (penalty.map { sum + $0 } ?? sum).backward()
                }
                mark(MemoryLedger.Mark.update)
                // AdamW's fused kernels allocate nothing; other optimizers consist of tensor operations.
                if ![.adamw, .adamw8bit].contains(configuration.optimizer) { optimizer.update(learningRate: 1e-3) }
                optimizer.clearGradients()
            }
        }
    }

    /// Mapped fp32 weights are resident once touched: all of them, except embedding tables that are only looked up, of which
    /// only the rows of used tokens are. Full fine-tuning writes to every page, which is then private to the process
    /// (copy-on-write) and counted once.
    private static func residentWeights(
        _ outline: ModelOutline, _ attachments: [Attachment], _ base: PlannedBase, batch: PlannedBatch
    ) -> Int {
        let whole = outline.weightBytes
        let isMapped = base.fileBytes == 0 || base.fileBytes >= whole || base.convertsWeights
        let isTrained = attachments.contains {
            $0.site == .parameter && $0.path == outline.inputEmbedding + ".weight"
        }
        guard isMapped, !isTrained, !outline.isTied,
            let table = outline.embeddings.first(where: { $0.path == outline.inputEmbedding })
        else { return whole }
        let kept = outline.frozen.first { $0.path == table.path + ".weight" }
        // Quantized tables are fully resident.
        guard kept?.takesCopies ?? true else { return whole }
        // Long training uses nearly the whole vocabulary of the tokenizer.
        let used = min(table.entries, base.usedVocabulary ?? table.entries)
        return whole - (table.entries - used) * table.size * (kept == nil ? 4 : 2)
    }

    /// Initializations that replace the base weight (PiSSA) need a copy of it.
    private static func replacedWeights(
        _ choice: MethodChoice, _ outline: ModelOutline, _ attachments: [Attachment]
    ) -> Int {
        guard let lora = choice.configuration as? LoRA.Configuration, lora.variants.initialization.replacesWeight
        else {
            return 0
        }
        let targets = Set(attachments.filter { $0.site == .linear }.map(\.path))
        return outline.linears.filter { targets.contains($0.path) }.reduce(0) { $0 + $1.inputs * $1.outputs * 4 }
    }
}
