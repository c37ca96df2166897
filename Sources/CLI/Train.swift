import ArgumentParser
import Foundation
import LanguageModels
import PEFT
import PEFTDistributed
import PEFTSupport
import PEFTTokenizers
import Torch
import Training

struct Train: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Fine-tune a model with LoRA or any other method.",
        discussion: """
            peft train --data train.jsonl --prompt 'Summarize: {dialogue}' --target '{summary}' \\
              --method lora --rank 16 --targets q,v --output my-adapter
            peft train --again my-adapter --output the-same

            peft train --from-adapter my-adapter --data more.jsonl --output my-next-adapter
            """)

    @OptionGroup var model: ModelOptions
    @Option(help: DataHelp.training) var data: [String]
    @Option(help: ArgumentHelp("Validation data.", valueName: "file")) var validation: String?
    @OptionGroup var split: ValidationSplitOption
    @Option(help: ArgumentHelp("Maximum number of examples for training, and for validation.", valueName: "n"))
    var limit: Int?
    @Option(
        help: ArgumentHelp(
            "Text file for measuring forgetting: its loss before and after training.", valueName: "file"))
    var retain: String?
    @OptionGroup var templates: TemplateOptions
    @OptionGroup var chat: ChatOptions
    @Option(help: "Fine-tuning method; see peft methods (default: lora).") var method: String?
    @OptionGroup var options: MethodOptions
    @Option(
        help: ArgumentHelp("Continue training this adapter, with its method and settings.", valueName: "folder"))
    var fromAdapter: String?
    @Option(
        help: ArgumentHelp(
            "Text file of tokens to add to the vocabulary, one per line. The method trains them too, if it can.",
            valueName: "file"))
    var addTokens: String?
    @Option(
        name: [.customLong("learning-rate"), .customLong("lr")],
        help: ArgumentHelp("Peak learning rate (default: depends on the method).", valueName: "x"))
    var learningRate: Double?
    @OptionGroup var training: TrainingOptions
    @Option(help: ArgumentHelp("Stop after this many validations without improvement.", valueName: "n")) var patience:
        Int?
    @Option(help: ArgumentHelp("Steps between checkpoints (default: one at each validation).", valueName: "steps"))
    var checkpointEvery: Int?
    @Option(
        name: .shortAndLong,
        help: ArgumentHelp("Output folder for the adapter, or for the model with --method full.", valueName: "folder")
    )
    var output: String?
    @Flag(
        help:
            "Shard the base over the processes: each keeps 1/N of its weights and gathers a layer when it is needed. Less memory, more communication, identical results."
    )
    var shardBase = false
    @Flag(help: "Print the first batch with its loss mask and exit.")
    var showBatch = false
    @Flag(help: "Print token IDs too, with --show-batch.") var showIds = false
    @Flag(help: "Resume an interrupted run from its latest checkpoint.") var resume = false
    @Option(
        help: ArgumentHelp(
            "Repeat the run that wrote this folder, with its options, data and number of threads.", valueName: "run"))
    var again: String?
    @OptionGroup var records: RecordOptions
    @Flag(help: "Print the result as JSON.") var json = false
    @Flag(help: "Suppress progress output.") var quiet = false

    func validate() throws {
        guard output != nil || showBatch else {
            throw ValidationError("Missing expected argument '--output <folder>'")
        }
        guard addTokens == nil || fromAdapter == nil else {
            throw ValidationError("--add-tokens can't be combined with --from-adapter, whose vocabulary is fixed")
        }
    }

    func run() throws {
        let launch = try LaunchEnvironment.read()
        // A batch is shown once, and without the others.
        if showBatch, let launch, launch.rank > 0 { return }
        let repeated = try again.map { try RepeatedRun($0) }
        try repeated?.begin()
        try ParallelRun.run(showBatch ? nil : launch) {
            try train(on: model.prepare(for: launch), $0, repeating: repeated)
        }
    }

    /// - Parameters:
    ///   - job: the processes that train together; the first one writes and reports.
    ///   - repeated: the run that this one repeats.
    private func train(on device: Device, _ job: DistributedJob?, repeating repeated: RepeatedRun?) throws {
        let start = try fromAdapter.map { try StartingAdapter($0) }
        let requested = try start?.choice(method: method, options) ?? options.choice(method ?? "lora")
        let new = try addTokens.map {
            try AddedVocabulary($0, base: model.folder(weights: requested.baseStorage), seed: training.seed)
        }
        let choice = try new?.choice(requested) ?? requested
        var configuration = try training.configuration()
        configuration.learningRate =
            learningRate ?? choice.method.defaultLearningRate * configuration.optimizer.defaultRateFactor
        configuration.patience = patience
        configuration.checkpointEvery = checkpointEvery
        try checkingOptions { try configuration.validate() }

        if shardBase { try ShardedBase.check(choice, job, self) }
        if showBatch { return try prepareData(choice, start, new).show(configuration, showsIDs: showIds, json: json) }
        guard let output else { return }
        let checkpoints = CheckpointFolder(of: Output.url(output))
        let isFirst = job?.isFirst ?? true
        let logFolder = try isFirst ? records.folder(resuming: resume) : nil
        let opened = try isFirst ? open(checkpoints, output) : nil
        defer { withExtendedLifetime(opened) {} }

        // Planning reports errors in the method's settings before anything large is read.
        if start == nil {
            let bare = try (new?.folder ?? model.folder(weights: choice.baseStorage)).outline()
            if bare.generates { _ = try choice.plan(for: ModelOutline(bare)) }
        }
        // Before the data are read: what changes from now on is not what the run saw.
        var origin =
            try isFirst
            ? RepeatedRun.origin(
                self.data + [validation, retain, addTokens].compactMap { $0 }, start?.adapter.url, device)
            : nil
        let data = try prepareData(choice, start, new)
        let (modelFolder, tokenizer) = (data.folder, data.tokenizer)
        let samples = try records.validationSamples(data)
        let outline = try modelFolder.outline()
        if start == nil {
            _ = try choice.plan(for: ModelOutline(outline))
            RunWarnings.show(RunWarnings.layers(choice, ModelOutline(outline)))
        }

        // Only the process that reports it measures it, unless all are needed to gather weights.
        let retention = try (isFirst || shardBase ? retain : nil).map {
            try Retention(
                URL(fileURLWithPath: NSString(string: $0).expandingTildeInPath), tokenizer: tokenizer,
                head: outline.head, architecture: outline.architecture)
        }

        let base = try modelFolder.load(
            device: device, partitioning: ShardedBase.make(job, modelFolder, isSharded: shardBase))
        let lossBefore = try retention?.loss(of: base)
        if !quiet { new?.announce() }
        let vocabulary = new?.isResized == true ? EnlargedVocabulary(of: base) : nil
        let adapter =
            try start?.attach(to: base)
            ?? Adapter(choice, on: base, seed: configuration.seed, tokenizer: tokenizer)
        adapter.enlargedVocabulary = vocabulary
        let trainer = try Trainer(
            adapter, training: data.training, validation: data.validation, configuration: configuration,
            checkpointFolder: checkpoints.url, job: job)
        origin?.examples = trainer.digests?.examples
        origin?.base = trainer.digests?.base
        if let origin { try repeated?.compare(origin, processes: job?.size) }
        RunWarnings.show(RunWarnings.warmup(configuration, totalSteps: trainer.totalSteps))
        var resumed: Int?
        let plan = PlanSummary(
            try adapter.choice.plan(for: ModelOutline(adapter.model)), outline: ModelOutline(adapter.model))
        if !quiet { announce(adapter, trainer, plan, data) }
        if resume {
            let step = try trainer.resume()
            resumed = step
            if !quiet {
                Console.note(
                    step.map { "resuming after step \($0)" } ?? "no checkpoint found; starting from scratch")
            }
        }
        Interrupt.install(ofPipes: true)
        let display = ProgressDisplay(isQuiet: quiet || !isFirst)
        let stop = StopForTests()
        let baseName = try start?.base.name(model) ?? model.model ?? ModelLocator.embedded
        let log =
            records.noLog || !isFirst
            ? nil
            : TrainingLog(
                logFolder, checkpoints,
                RunDescription(
                    model: baseName, method: adapter.choice.label, data: self.data.joined(separator: ", "),
                    trainingExamples: data.training.count, validationExamples: data.validation.count,
                    trainable: plan.trainable, total: plan.total, totalSteps: trainer.totalSteps),
                resumingAfter: resumed, model: adapter.model, samples: samples)
        let runs = {
            try trainer.run(
                onEvent: { event in
                    show(event, on: display)
                    log?.note(event)
                    stop.note(event)
                    return !Interrupt.isRequested
                }, isStopping: { Interrupt.isRequested })
        }
        let result = try log?.recording(runs) ?? runs()
        display.finish()
        let forgetting = try retention.flatMap { text in
            try lossBefore.map {
                try RetentionResult(text: text.name, before: $0, after: text.loss(of: adapter.model))
            }
        }
        guard let folder = opened?.folder else { return }

        var record = TrainingRecord(
            model: baseName, method: choice.method.name,
            methodFields: choice.configuration.named, prompt: data.format.templates?.prompt.text ?? "",
            target: data.format.templates?.target?.text ?? "", maxInputTokens: data.maxInputTokens,
            data: self.data.joined(separator: ", "),
            trainingRows: data.training.count, validationRows: data.validation.count,
            configuration: configuration, trainable: plan.trainable, total: plan.total, result: result,
            retention: forgetting)
        record.processes = job?.size
        record.origin = origin
        record.validationSplit = split.validationSplit
        record.head = data.head
        record.labels = data.head.flatMap { $0.labels.isEmpty ? nil : $0.labels }
        (record.pair, record.negative) = (data.format.templates?.pair?.text, data.format.templates?.negative?.text)
        record.sourceLanguage = data.format.templates?.sourceLanguage?.text
        record.targetLanguage = data.format.templates?.targetLanguage?.text
        record.chat = data.format.chat
        record.weights = modelFolder.storage?.name
        record.embeddingWeights = modelFolder.embeddingStorage?.name
        try AtomicFile.writeFolder(folder, replacing: false) { folder in
            let isModel = choice.method.peftType == nil
            try new?.write(into: folder, isModel: isModel)
            if isModel {
                try adapter.model.write(into: folder, copying: new.map { _ in [] })
                if let template = data.format.chat?.template {
                    try AtomicFile.write(template, to: folder.appendingPathComponent(ChatTemplate.fileName))
                }
            } else {
                try adapter.write(into: folder, base: baseName)
                for file in try start?.tokenizerFiles() ?? [] { try file.write(into: folder) }
            }
            try record.write(into: folder)
            if choice.method.peftType != nil {
                try ModelCard.write(into: folder, name: Output.url(output).lastPathComponent, record: record)
            }
            log?.copy(into: folder)
        }
        trainer.removeCheckpoints()
        try report(record, result, output)
        try repeated?.report(result.history, folder, isQuiet: quiet)
    }

    private func prepareData(_ choice: MethodChoice, _ start: StartingAdapter?, _ new: AddedVocabulary?) throws
        -> TrainingData
    {
        let folder = try start?.folder(model) ?? new?.folder ?? model.folder(weights: choice.baseStorage)
        let split = try split.heldOut(validation: validation, seed: training.seed)
        let tokenizerFolder = try start.map { try AdapterBase.tokenizerFolder($0.adapter.url, base: folder) }
        return try TrainingData(
            data, validation: validation, split: split, limit: limit, for: folder, settings: templates.settings(chat),
            virtualTokens: choice.virtualTokens, adapter: start?.adapter, record: start?.record,
            tokenizerFolder: tokenizerFolder ?? new?.tokenizerFolder, onNote: Console.note)
    }

    private func announce(_ adapter: Adapter, _ trainer: Trainer, _ plan: PlanSummary, _ data: TrainingData) {
        let share = String(format: "%.2f %%", plan.share * 100)
        Console.note(
            "\(adapter.choice.label): \(Console.grouped(plan.trainable)) of \(Console.grouped(plan.total)) parameters are trainable (\(share))"
        )
        if !adapter.model.generates { Console.note("task: \(Self.text(adapter.model.head))") }
        let summary = data.summary
        Console.note(
            "\(counted(summary.rows, "example")), \(counted(summary.inputTokens, "input token")), \(counted(summary.targetTokens, "target token")), \(counted(trainer.totalSteps, "optimizer step"))"
        )
        data.showNotes()
    }

    /// The task with its labels, as a line of text.
    private static func text(_ head: ModelHead) -> String {
        switch head.task {
        case .embeddings: return "embeddings, \(head.pooling.mode.rawValue) pooling"
        case _ where head.task.hasLabels:
            let shown = head.labels.prefix(5).joined(separator: ", ")
            return
                "\(head.task.rawValue), \(counted(head.labels.count, "label")) (\(shown)\(head.labels.count > 5 ? ", …" : ""))"
        default: return head.task.rawValue
        }
    }

    private func show(_ event: TrainingEvent, on display: ProgressDisplay) {
        switch event {
        case .step(let progress):
            display.update(
                share: Double(progress.step) / Double(progress.totalSteps),
                [
                    .init("step \(progress.step)/\(progress.totalSteps)"),
                    .init(String(format: "epoch %.1f", progress.epoch), rank: 4),
                    .init(String(format: "loss %.3f", progress.loss), rank: 2),
                    .init(String(format: "%.0f tokens/s", progress.tokensPerSecond), rank: 3),
                    .init(progress.memory.map(Console.bytes) ?? "", rank: 5),
                    .init("\(Console.duration(progress.secondsLeft)) left", rank: 1),
                ])
        case .validation(let step, let loss, let isBest):
            display.finish(String(format: "step %d: validation loss %.4f%@", step, loss, isBest ? " (best)" : ""))
        case .stoppedEarly(let step): display.finish("stopped early after step \(step)")
        case .checkpoint: break
        }
    }

    private func report(_ record: TrainingRecord, _ result: TrainingResult, _ output: String) throws {
        if json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.sortedKeys, .prettyPrinted, .withoutEscapingSlashes]
            print(String(decoding: try encoder.encode(record), as: UTF8.self))
            return
        }
        let last = result.history.training.suffix(10).map(\.loss)
        var lines = ["saved to \(output)"]
        lines.append(
            String(
                format: "%@ in %@, %.0f tokens/s, training loss %.3f", counted(result.steps, "step"),
                Console.duration(result.seconds), result.tokensPerSecond,
                last.reduce(0, +) / Double(max(1, last.count))))
        if let step = result.history.bestStep, let loss = result.history.bestLoss {
            lines.append(
                String(format: "best validation loss %.4f at step %d; that checkpoint was saved", loss, step))
        }
        if let retention = record.retention {
            lines.append(
                String(
                    format: "loss on %@: %.3f before, %.3f after training (%+.3f nats per token)", retention.text,
                    retention.before, retention.after, retention.after - retention.before))
        }
        if let peak = result.peakBytes { lines.append("peak memory \(Console.bytes(peak))") }
        print(lines.joined(separator: "\n"))
    }

    /// Checks and locks the output.
    private func open(_ checkpoints: CheckpointFolder, _ output: String) throws -> (folder: URL, lock: FolderLock) {
        checkpoints.removeIfFinished(Output.url(output))
        let folder = try Output.folder(output)
        let lock = try checkpoints.lock()
        Interrupt.removing(lock.file)
        guard resume || !checkpoints.hasCheckpoint else {
            throw PEFTError(
                "the output has an unfinished run in \(checkpoints.url.path)",
                remedy: "continue it with --resume, or remove that folder")
        }
        return (folder, lock)
    }
}
