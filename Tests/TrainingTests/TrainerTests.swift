import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import PEFTTokenizers
import TestSupport
import Testing
import Torch
import TorchNN

@testable import Training

/// The trainer on a small model with dropout, as a user's run has it.
@Suite struct TrainerTests {
    // MARK: Pieces

    /// A copy of a small model whose dropout is live.
    private func model(in folder: URL, dropout: Double = 0.1) throws -> any LanguageModel {
        let copy = folder.appendingPathComponent("model-\(dropout)")
        if !FileManager.default.fileExists(atPath: copy.path) {
            try FileManager.default.copyItem(at: Checkout.model("t5-v1.1"), to: copy)
            try JSON.rewrite(copy.appendingPathComponent("config.json")) { $0["dropout_rate"] = .number(dropout) }
        }
        return try ModelFolder(copy).load()
    }

    private func rows(_ count: Int, seed: UInt64) -> [EncodedExample] {
        var random = SeededRandom(seed: seed)
        func tokens(_ count: Int) -> [Int] { (0..<count).map { _ in 2 + random.below(90) } + [1] }
        return (0..<count).map { _ in
            EncodedExample(input: tokens(3 + random.below(12)), target: tokens(random.below(7)))
        }
    }

    private var configuration: TrainingConfiguration {
        var configuration = TrainingConfiguration()
        // 10 rows: two steps of four rows and one of two an epoch, nine steps in all.
        (configuration.batchSize, configuration.accumulation, configuration.epochs) = (2, 2, 3)
        (configuration.learningRate, configuration.schedule, configuration.warmup) = (3e-3, "cosine", 0.2)
        (configuration.clip, configuration.labelSmoothing, configuration.validateEvery) = (0.5, 0.1, 2)
        configuration.checkpointEvery = 3
        return configuration
    }

    private var lora: MethodChoice {
        MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, dropout: 0.1, targets: ["q", "v", "wo"]))
    }

    private func trainer(
        in folder: URL, _ choice: MethodChoice? = nil, _ configuration: TrainingConfiguration? = nil,
        checkpoints: String? = "run", dropout: Double = 0.1, training: [EncodedExample]? = nil,
        hasOtherWeights: Bool = false, adapterSeed: UInt64 = 5
    ) throws -> Trainer {
        let model = try model(in: folder, dropout: dropout)
        if hasOtherWeights, let weight = model.parameters().last?.parameter.tensor {
            weight.copy(from: weight.detached() * 2)
        }
        let adapter = try Adapter(choice ?? lora, on: model, seed: adapterSeed)
        return try Trainer(
            adapter, training: training ?? rows(10, seed: 1), validation: rows(3, seed: 2),
            configuration: configuration ?? self.configuration,
            checkpointFolder: checkpoints.map { folder.appendingPathComponent($0) })
    }

    private func values(_ trainer: Trainer) -> [[Float]] { trainer.adapter.parameters.map { $0.tensor.array() } }

    private func interrupt(_ trainer: Trainer, after step: Int) throws {
        let interruption = try #require(throws: TrainingInterrupted.self) {
            try trainer.run { event in
                if case .step(let progress) = event { return progress.step < step }
                return true
            }
        }
        #expect(interruption.step == step)
    }

    // MARK: Memory

    /// What saves memory changes no number, and a run may go on without it.
    @Test(arguments: ["lora", "full"], [false, true])
    func aRunInLessMemoryIsTheSameRun(method: String, isOnDisk: Bool) throws {
        try withTemporaryFolder { folder in
            let choice = method == "lora" ? lora : MethodChoice(try PEFTMethods.named(method))
            let whole = try trainer(in: folder, choice, checkpoints: "whole")
            let result = try whole.run()
            var saving = configuration
            saving.memory.checkpointsActivations = true
            saving.memory.offloadsActivations = isOnDisk
            saving.memory.pagesOptimizer = isOnDisk
            try interrupt(trainer(in: folder, choice, saving), after: 4)
            let other = try trainer(in: folder, choice)
            #expect(try other.resume() == 4)
            try interrupt(other, after: 6)
            let last = try trainer(in: folder, choice, saving)
            #expect(try last.resume() == 6)
            let resumed = try last.run()
            #expect(values(last) == values(whole))
            #expect(resumed.history == result.history)
        }
    }

    // MARK: Resuming

    @Test(arguments: ["lora", "full"], TrainingConfiguration.OptimizerKind.allCases)
    func aResumedRunEqualsTheUninterruptedOne(method: String, optimizer: TrainingConfiguration.OptimizerKind) throws {
        try withTemporaryFolder { folder in
            let choice = method == "lora" ? lora : MethodChoice(try PEFTMethods.named(method))
            var configuration = configuration
            configuration.optimizer = optimizer
            if method == "full", optimizer == .loraFA {
                let error = try #require(throws: PEFTError.self) { try trainer(in: folder, choice, configuration) }
                #expect(error.problem.contains("lora-fa"))
                return
            }
            // Noise on the embedded tokens is part of a step's random stream.
            configuration.neftuneAlpha = optimizer == .lion ? 5 : nil
            let whole = try trainer(in: folder, choice, configuration, checkpoints: "whole")
            let start = values(whole)
            let result = try whole.run()
            #expect(result.steps == 9 && whole.totalSteps == 9)
            #expect(values(whole) != start)
            #expect(result.history.training.map(\.step) == Array(1...9))
            #expect(result.history.validation.map(\.step) == [2, 4, 6, 8, 9])

            // Stopped in the first epoch, between two checkpoints, at a validation, and before the last step.
            for step in [1, 4, 5, 8] {
                let part = try trainer(in: folder, choice, configuration)
                #expect(try part.resume() == (step == 1 ? nil : [4: 1, 5: 4, 8: 5][step]))
                try interrupt(part, after: step)
            }
            let last = try trainer(in: folder, choice, configuration)
            #expect(try last.resume() == 8)
            let resumed = try last.run()
            #expect(values(last) == values(whole))
            #expect(resumed.history == result.history)
        }
    }

    /// A stop doesn't wait for the rest of a step or of a validation: both are done again.
    @Test(arguments: ["lora", "adalora", "eva"]) func aRunStopsBetweenMicroBatches(method: String) throws {
        try withTemporaryFolder { folder in
            var choice = MethodChoice(try PEFTMethods.named(method))
            try choice.set(method == "adalora" ? "init-rank" : "rank", to: "2")
            if method == "adalora" { try choice.set("target-rank", to: "1") }
            var configuration = configuration
            configuration.checkpointEvery = nil
            let whole = try trainer(in: folder, choice, configuration, checkpoints: "whole")
            let result = try whole.run()
            // Asked between two micro-batches of steps 1 … 9, and before each batch of a validation.
            var calls = 0
            for _ in 0..<200 {
                let part = try trainer(in: folder, choice, configuration)
                _ = try part.resume()
                var (asked, isDone) = (0, false)
                calls += 1
                do {
                    let resumed = try part.run(isStopping: {
                        asked += 1
                        return asked == 3
                    })
                    #expect(resumed.history == result.history)
                    #expect(values(part) == values(whole))
                    isDone = true
                } catch let stopped as TrainingInterrupted {
                    #expect(stopped.step < whole.totalSteps || stopped.step == 9)
                    let saved = folder.appendingPathComponent("run/newest/state.json")
                    #expect(FileManager.default.fileExists(atPath: saved.path) == (stopped.step > 0))
                    // EVA looks at training batches first.
                    if stopped.step == 0 { break }
                }
                if isDone { break }
            }
            #expect(method == "eva" || calls > 2)
        }
    }

    @Test func checkpointsOfAFinishedRunAreRemoved() throws {
        try withTemporaryFolder { folder in
            let output = folder.appendingPathComponent("out")
            let place = CheckpointFolder(of: output)
            let trainer = try trainer(in: folder, checkpoints: "out.checkpoint")
            let result = try trainer.run()
            #expect(place.hasCheckpoint)
            place.removeIfFinished(output)
            #expect(place.hasCheckpoint)
            func record(_ result: TrainingResult) throws {
                try AtomicFile.writeFolder(output) { folder in
                    try TrainingRecord(
                        model: "base", method: "lora", methodFields: [:], prompt: "", target: "", maxInputTokens: 1,
                        data: "", trainingRows: 10, validationRows: 3, configuration: configuration, trainable: 1,
                        total: 1, result: result
                    ).write(into: folder)
                }
            }
            var other = result
            other.history.training[0].loss += 1
            try record(other)
            place.removeIfFinished(output)
            #expect(place.hasCheckpoint)
            try record(result)
            place.removeIfFinished(output)
            #expect(!FileManager.default.fileExists(atPath: place.url.path))
        }
    }

    /// A crash writes no checkpoint: the run continues from the last one that was due.
    @Test func aCrashGoesBackToTheLastCheckpoint() throws {
        try withTemporaryFolder { folder in
            let whole = try trainer(in: folder, checkpoints: "whole")
            // What lies on the disk whenever the process ends between the steps 6 and 8, the best of step 6 included.
            let crashed = folder.appendingPathComponent("crashed")
            var copyError: (any Error)?
            let expected = try whole.run { event in
                guard case .checkpoint(6) = event else { return true }
                do {
                    try FileManager.default.copyItem(at: folder.appendingPathComponent("whole"), to: crashed)
                } catch { copyError = error }
                return true
            }
            #expect(copyError == nil)
            let continued = try trainer(in: folder, checkpoints: "crashed")
            #expect(try continued.resume() == 6)
            let result = try continued.run()
            #expect(result.history == expected.history)
            #expect(values(continued) == values(whole))
        }
    }

    @Test func seedsDecideTheRun() throws {
        try withTemporaryFolder { folder in
            func run(_ seed: UInt64) throws -> [Double] {
                var configuration = configuration
                configuration.seed = seed
                return try trainer(in: folder, nil, configuration, checkpoints: nil).run().history.training.map(
                    \.loss)
            }
            let first = try run(1)
            #expect(first == (try run(1)))
            #expect(first != (try run(2)))
        }
    }

    @Test func checkpointsOfAnotherRunAreRefused() throws {
        try withTemporaryFolder { folder in
            try interrupt(trainer(in: folder), after: 3)
            var otherRate = configuration
            otherRate.learningRate = 1e-3
            let otherMethod = MethodChoice(LoRA.self, LoRA.Configuration(rank: 3, alpha: 4, targets: ["q"]))
            let attempts: [(String, () throws -> Trainer)] = [
                ("--learning-rate 0.003, but this run uses 0.001", { try trainer(in: folder, nil, otherRate) }),
                ("--dropout 0.1, but this run uses 0", { try trainer(in: folder, otherMethod) }),
                (
                    "--method lora, but this run uses full",
                    { try trainer(in: folder, MethodChoice(FullFineTuning.self)) }
                ),
                ("other training or validation examples", { try trainer(in: folder, training: rows(10, seed: 9)) }),
                ("another base model", { try trainer(in: folder, hasOtherWeights: true) }),
                ("seed 5 of the adapter, but this run uses 4", { try trainer(in: folder, adapterSeed: 4) }),
            ]
            for (what, make) in attempts {
                let trainer = try make()
                let before = values(trainer)
                let error = try #require(throws: PEFTError.self) { try trainer.resume() }
                #expect(error.problem.contains(what) && error.remedy != nil)
                #expect(values(trainer) == before)
            }
            #expect(try trainer(in: folder).resume() == 3)
            // A checkpoint from before models and seeds were noted goes on.
            let file = folder.appendingPathComponent("run/newest/state.json")
            var state = try #require(JSON.read(file).object)
            var known = try #require(state["fingerprint"]?.object)
            #expect(known.removeValue(forKey: "base") != nil && known.removeValue(forKey: "seed") != nil)
            state["fingerprint"] = .object(known)
            try AtomicFile.write(JSON.object(state).text(), to: file)
            #expect(try trainer(in: folder, hasOtherWeights: true, adapterSeed: 4).resume() == 3)
        }
    }

    @Test(arguments: ["state.json", "parameters.safetensors", "optimizer.safetensors"], [0.0, 0.5, 0.99])
    func damagedCheckpointsAreErrors(file: String, share: Double) throws {
        try withTemporaryFolder { folder in
            try interrupt(trainer(in: folder), after: 3)
            let url = folder.appendingPathComponent("run/newest/\(file)")
            let data = try Data(contentsOf: url)
            try data.prefix(Int(Double(data.count) * share)).write(to: url)
            let trainer = try trainer(in: folder)
            let before = values(trainer)
            let error = try #require(throws: PEFTError.self) { try trainer.resume() }
            #expect(error.problem.contains(file))
            #expect(values(trainer) == before)
        }
    }

    @Test func leftoversOfACrashDoNotHurt() throws {
        try withTemporaryFolder { folder in
            let whole = try trainer(in: folder, checkpoints: "whole")
            let expected = try whole.run().history
            try interrupt(trainer(in: folder), after: 4)
            for name in [".newest.tmp-1", ".newest.tmp-\(getpid())", ".newest.old-\(getpid())"] {
                let leftover = folder.appendingPathComponent("run/\(name)")
                try FileManager.default.createDirectory(at: leftover, withIntermediateDirectories: true)
                try Data("half".utf8).write(to: leftover.appendingPathComponent("state.json"))
            }
            try Data("half".utf8).write(to: folder.appendingPathComponent("run/best.safetensors.tmp-\(getpid())"))
            let resumed = try trainer(in: folder)
            #expect(try resumed.resume() == 4)
            #expect(try resumed.run().history == expected)
            #expect(values(resumed) == values(whole))
        }
    }

    // MARK: Steps

    @Test func accumulationEqualsLargerBatches() throws {
        try withTemporaryFolder { folder in
            func run(_ batch: Int, _ accumulation: Int) throws -> (losses: [Double], values: [[Float]]) {
                var configuration = configuration
                (configuration.batchSize, configuration.accumulation) = (batch, accumulation)
                configuration.learningRate = 1e-3
                let choice = MethodChoice(LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["q", "v"]))
                let trainer = try trainer(in: folder, choice, configuration, checkpoints: nil, dropout: 0)
                return (try trainer.run().history.training.map(\.loss), values(trainer))
            }
            // The rows differ in length: the mean is over all target tokens of a step, not over its passes.
            let (whole, parts) = (try run(4, 1), try run(2, 2))
            for (a, b) in zip(whole.losses, parts.losses) { #expect(abs(a - b) < 1e-5 * a) }
            for (a, b) in zip(whole.values.joined(), parts.values.joined()) { #expect(abs(a - b) < 2e-5) }
        }
    }

    @Test func anEpochSeesEveryRowOnce() throws {
        try withTemporaryFolder { folder in
            var configuration = configuration
            (configuration.batchSize, configuration.accumulation, configuration.clip) = (1, 1, 0)
            (configuration.learningRate, configuration.labelSmoothing, configuration.weightDecay) = (1e-30, 0, 0)
            configuration.warmup = 0
            // With steps of no size each loss names its row.
            let trainer = try trainer(
                in: folder, nil, configuration, checkpoints: nil, dropout: 0, training: rows(5, seed: 4))
            let choice = try Adapter(MethodChoice(LoRA.self), on: model(in: folder, dropout: 0))
            let alone = try rows(5, seed: 4).map { row in
                try withTorchErrors {
                    withoutGradients {
                        let batch = choice.model.batch([(row.input, row.target)], device: .cpu)
                        return choice.model.lossSum(batch, labelSmoothing: 0).item() / Double(batch.targetCount)
                    }
                }
            }
            let losses = try trainer.run().history.training.map(\.loss)
            let order = losses.map { loss in alone.indices.min { abs(alone[$0] - loss) < abs(alone[$1] - loss) } ?? -1
            }
            let epochs = stride(from: 0, to: 15, by: 5).map { Array(order[$0..<($0 + 5)]) }
            for epoch in epochs { #expect(epoch.sorted() == [0, 1, 2, 3, 4]) }
            #expect(Set(epochs).count > 1, "each epoch has an order of its own")
        }
    }

    @Test func staleGradientsDoNotCount() throws {
        try withTemporaryFolder { folder in
            let clean = try trainer(in: folder, checkpoints: nil)
            let stale = try trainer(in: folder, checkpoints: nil)
            for parameter in stale.adapter.parameters {
                parameter.tensor.grad = .full(parameter.tensor.shape, 7)
            }
            #expect(try stale.run().history == clean.run().history)
            #expect(values(stale) == values(clean))
            #expect(stale.adapter.parameters.allSatisfy { $0.tensor.grad == nil })
        }
    }

    // MARK: Validation

    /// Rows of the same kind can't be predicted from others: the validation loss has to rise in the end.
    private var overfitting: TrainingConfiguration {
        var configuration = TrainingConfiguration()
        (configuration.batchSize, configuration.steps, configuration.validateEvery) = (10, 30, 2)
        (configuration.learningRate, configuration.schedule, configuration.clip) = (0.05, "constant", 0)
        return configuration
    }

    @Test func theBestParametersAreLeftInPlace() throws {
        try withTemporaryFolder { folder in
            let trainer = try trainer(in: folder, nil, overfitting, dropout: 0)
            var best = Double.infinity
            var steps: [Int] = []
            let result = try trainer.run { event in
                if case .validation(let step, let loss, let isBest) = event {
                    #expect(isBest == (loss < best))
                    if isBest { steps.append(step) }
                    best = min(best, loss)
                }
                return true
            }
            let history = result.history
            #expect(history.bestLoss == best && history.bestStep == steps.last)
            #expect(try #require(history.bestStep) < 30, "the run doesn't overfit")
            #expect(try #require(history.validation.last).loss > best)
            #expect(try trainer.validationLoss() == best)
            trainer.removeCheckpoints()
            #expect(!FileManager.default.fileExists(atPath: folder.appendingPathComponent("run").path))
        }
    }

    @Test func patienceStopsEarly() throws {
        try withTemporaryFolder { folder in
            var configuration = overfitting
            (configuration.steps, configuration.patience) = (200, 3)
            let trainer = try trainer(in: folder, nil, configuration, dropout: 0)
            var stops: [Int] = []
            let result = try trainer.run { event in
                if case .stoppedEarly(let step) = event { stops.append(step) }
                return true
            }
            #expect(result.steps < 200 && stops == [result.steps])
            #expect(result.history.sinceBest == 3)
            #expect(result.history.bestStep == result.steps - 3 * 2)
            #expect(try trainer.validationLoss() == result.history.bestLoss)
            // If the result can't be saved, the run need not be repeated, and doesn't go on.
            let again = try self.trainer(in: folder, nil, configuration, dropout: 0)
            #expect(try again.resume() == result.steps)
            #expect(try again.run().steps == result.steps)
            #expect(try again.validationLoss() == result.history.bestLoss)
        }
    }

    @Test func validationLossIsPerTokenAndWithoutDropout() throws {
        try withTemporaryFolder { folder in
            let trainer = try trainer(in: folder, checkpoints: nil)
            let (model, examples) = (trainer.adapter.model, rows(7, seed: 8))
            let losses = try [1, 3, 7].map { try model.meanLoss(examples, batchSize: $0) }
            for loss in losses { #expect(abs(loss - losses[0]) < 1e-6 * loss) }
            #expect(try model.meanLoss(examples, batchSize: 3) == losses[1])
            #expect(throws: PEFTError.self) { try model.meanLoss([], batchSize: 3) }
        }
    }

    // MARK: What can go wrong

    @Test func divergenceIsAClearError() throws {
        try withTemporaryFolder { folder in
            for validateEvery in [1, 100] {
                var configuration = configuration
                (configuration.learningRate, configuration.schedule, configuration.warmup) = (1e30, "constant", 0)
                configuration.validateEvery = validateEvery
                let trainer = try trainer(in: folder, nil, configuration)
                let error = try #require(throws: TrainingDiverged.self) { try trainer.run() }.error
                #expect(error.problem.contains("NaN or infinite") && error.problem.contains("step"))
                #expect(error.remedy?.contains("learning rate") == true)
            }
        }
    }

    /// A step that diverges names an example and a place, and leaves the checkpoint before it.
    @Test(arguments: [("full", 100, "exploded"), ("lora", 1e30, "NaN or infinite")])
    func divergenceNamesExampleAndLayer(method: String, rate: Double, what: String) throws {
        try withTemporaryFolder { folder in
            var configuration = configuration
            (configuration.learningRate, configuration.schedule, configuration.warmup) = (rate, "constant", 0)
            (configuration.validateEvery, configuration.checkpointEvery) = (100, 1)
            let choice = method == "lora" ? lora : MethodChoice(try PEFTMethods.named(method))
            let error = try #require(throws: TrainingDiverged.self) {
                try trainer(in: folder, choice, configuration, dropout: 0).run()
            }
            #expect(error.error.problem.contains(what), "\(error)")
            #expect(error.step == 2 && error.checkpoint == 1)
            #expect((1...10).contains(error.example ?? 0))
            #expect((error.loss == nil) == (error.place != nil), "\(error)")
            #expect(error.error.remedy?.contains("checkpoint of step 1 remains") == true)
            #expect(try trainer(in: folder, choice, configuration, dropout: 0).resume() == 1)
        }
    }

    @Test func impossibleSettingsAreRefused() throws {
        let changes: [(String, (inout TrainingConfiguration) -> Void)] = [
            ("learning rate", { $0.learningRate = 0 }), ("learning rate", { $0.learningRate = .nan }),
            ("steps", { $0.steps = 0 }), ("epochs", { $0.epochs = -1 }), ("batch size", { $0.batchSize = 0 }),
            ("accumulation", { $0.accumulation = 0 }), ("weight decay", { $0.weightDecay = -1 }),
            ("warm-up", { $0.warmup = -1 }), ("warm-up", { $0.warmup = .infinity }), ("epochs", { $0.epochs = 1e19 }),
            ("batch size", { $0.batchSize = .max }), ("accumulation", { $0.accumulation = .max }),
            ("norm", { $0.clip = -1 }), ("smoothing", { $0.labelSmoothing = 1 }),
            ("validation", { $0.validateEvery = 0 }), ("patience", { $0.patience = 0 }),
            ("checkpoint", { $0.checkpointEvery = 0 }), ("'cosin'", { $0.schedule = "cosin" }),
        ]
        for (what, change) in changes {
            var configuration = TrainingConfiguration()
            try configuration.validate()
            change(&configuration)
            let error = try #require(throws: PEFTError.self) { try configuration.validate() }
            // What would be right is said: in a remedy, or as the rule itself beside the value.
            let saysRule = error.problem.contains(" must ") && error.problem.contains("(got ")
            #expect(error.problem.contains(what) && (error.remedy != nil || saysRule), "\(error)")
        }
        try withTemporaryFolder { folder in
            #expect(throws: PEFTError.self) { try trainer(in: folder, training: []) }
            var patient = configuration
            patient.patience = 2
            let adapter = try Adapter(lora, on: model(in: folder))
            #expect(throws: PEFTError.self) {
                try Trainer(adapter, training: rows(2, seed: 1), validation: [], configuration: patient)
            }
        }
    }

    @Test func stepsAreCounted() {
        var configuration = TrainingConfiguration()
        (configuration.batchSize, configuration.accumulation, configuration.epochs) = (4, 2, 3)
        #expect(configuration.stepsPerEpoch(rows: 17) == 3 && configuration.totalSteps(rows: 17) == 9)
        configuration.epochs = 0.5
        #expect(configuration.totalSteps(rows: 17) == 2)
        configuration.steps = 7
        #expect(configuration.totalSteps(rows: 17) == 7)
        #expect(configuration.stepsPerEpoch(rows: 1) == 1)
    }

    /// A prompt that is too long loses its end; its end token and the whole target stay.
    @Test func truncationNeverEatsTheTarget() throws {
        let folder = Checkout.tinyT5
        let (tokenizer, model) = try (Tokenizer.load(folder: folder), ModelFolder(folder).outline())
        let long = String(repeating: "a long dialogue about very many things, ", count: 40)
        let rows = [(long, long), ("short", "summary"), (long, "x")].enumerated().map { index, pair in
            Example(
                prompt: pair.0, target: pair.1,
                row: Row.Location(file: "rows.jsonl", number: index + 1, unit: .line))
        }
        let (examples, summary) = try RowEncoder(tokenizer, for: model, maxInputTokens: 16).encode(rows)
        let end = try #require(tokenizer.eosTokenID)
        #expect(examples.map(\.input.count).max() == 16)
        #expect(examples.allSatisfy { $0.input.last == end && $0.target.last == end })
        #expect(examples[0].target == tokenizer.encode(text: long))
        #expect(examples[0].target.count > 100)
        #expect(Array(examples[0].input.prefix(15)) == Array(tokenizer.encode(text: long).prefix(15)))
        #expect((summary.rows, summary.truncated) == (3, 2))
        #expect(summary.longestTarget == examples[0].target.count)
        #expect(summary.inputTokens == examples.reduce(0) { $0 + $1.input.count })
        #expect(throws: PEFTError.self) { try RowEncoder(tokenizer, for: model, maxInputTokens: 1) }
    }
}
