import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Training

@testable import Experiments
@testable import PEFT

@Suite struct PlanTests {
    /// Settings that the small models need, as some defaults are larger than their projections.
    private static let needed = [
        "trainable_tokens": ["trainable-tokens": "2,5"], "alora": ["invocation-tokens": "2,5"],
        "miss": ["rank": "4"], "shira": ["rank": "2"], "c3a": ["block-size": "4"], "road": ["group-size": "4"],
        "fourierft": ["frequencies": "30"], "waveft": ["frequencies": "30"], "vblora": ["vector-length": "4"],
        "psoft": ["rank": "4"],
    ]

    /// Methods that make no sense: for decoders, for a head or biases that the model doesn't have, and for a quantized base.
    private static let refused: [String: Set<String>] = [
        "t5-v1.1": ["alora", "cpt", "llama-adapter", "bitfit", "head", "qalora"],
        "llama": ["bitfit", "head", "qalora"], "gpt2": ["llama-adapter", "head", "qalora"],
        "bert": ["alora", "cpt", "llama-adapter", "qalora"],
    ]

    /// Every method on every architecture is planned without weights, or says what is in the way.
    @Test(arguments: ["t5-v1.1", "llama", "gpt2", "bert"])
    func everyMethodIsPlanned(model: String) throws {
        let configuration = try JSON.read(Checkout.model(model + "/config.json"))
        let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
            try ModelRegistry.outline(configuration, file: "config.json")
        }
        let batch = try PlannedBatch(rows: 2, prompt: 12, target: 5)
        let outline = ModelOutline(try base.outline())
        var refused: Set<String> = []
        for method in PEFTMethods.builtIn {
            var choice = MethodChoice(method)
            for (option, value) in Self.needed[method.name] ?? [:] { try choice.set(option, to: value) }
            let counted: Int
            do { counted = PlanSummary(try choice.plan(for: outline), outline: outline).trainable } catch let error
                as PEFTError
            {
                #expect(error.remedy != nil, "\(method.name) on \(model): \(error)")
                refused.insert(method.name)
                continue
            }
            let plan = try TrainingPlan(
                choice, on: base, batch: batch, configuration: TrainingConfiguration(), baseline: 1 << 20)
            #expect(plan.summary.trainable == counted, "\(method.name) on \(model)")
            #expect(plan.totalBytes > plan.weightBytes, "\(method.name) on \(model)")
            #expect(plan.memory.optimizerStates >= 8 * counted, "\(method.name) on \(model)")
        }
        #expect(refused == Self.refused[model])
    }

    /// Each operation of a family has a kernel, and a derivative, without values.
    @Test(arguments: [
        "qwen3_5_text", "qwen3_next", "granitemoehybrid", "falcon_h1", "nemotron_h", "lfm2", "lfm2_moe", "mixtral",
        "gpt_oss",
        "deepseek_v3", "llama4_text", "gemma3n", "gemma4-experts", "bart",
    ]) func familiesArePlanned(name: String) throws {
        let configuration = try JSON.read(Checkout.model("decoders/\(name)/config.json"))
        let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
            try ModelRegistry.outline(configuration, file: "config.json")
        }
        let plan = try TrainingPlan(
            MethodChoice(LoRA.self), on: base, batch: try PlannedBatch(rows: 2, prompt: 12, target: 5),
            configuration: TrainingConfiguration(), baseline: 1 << 20)
        #expect(plan.summary.trainable > 0)
        #expect(plan.totalBytes > plan.weightBytes)
    }

    /// Moments in the ledger: two values per parameter of AdamW, one of Lion, and fewer of low-rank optimizers.
    @Test func optimizerStatesAreCounted() throws {
        let configuration = try JSON.read(Checkout.model("llama/config.json"))
        let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
            try ModelRegistry.outline(configuration, file: "config.json")
        }
        var bytes: [String: Int] = [:]
        var trained = 0
        let optimizers = [
            "adamw", "lion", "schedule-free", "muon", "galore(rank=2)", "apollo(rank=2)", "apollo-mini",
        ]
        for name in optimizers {
            var training = TrainingConfiguration()
            try training.setOptimizer(name)
            let plan = try TrainingPlan(
                MethodChoice(try PEFTMethods.named("full")), on: base,
                batch: PlannedBatch(rows: 2, prompt: 12, target: 5), configuration: training, baseline: 1 << 20)
            (bytes[name], trained) = (plan.memory.optimizerStates, plan.summary.trainable)
        }
        let adamW = try #require(bytes["adamw"])
        #expect(adamW >= 8 * trained)
        let lion = try #require(bytes["lion"])
        #expect(lion >= 4 * trained && lion < adamW * 3 / 4)
        #expect(try #require(bytes["schedule-free"]) >= 8 * trained)
        for name in ["muon", "galore(rank=2)", "apollo(rank=2)", "apollo-mini"] {
            #expect(try #require(bytes[name]) < adamW, "\(name)")
        }
    }

    /// Steps over an embedding table and an output layer in fewer bits, and their bytes.
    @Test(arguments: ["llama", "t5-v1.0"], ["bf16", "int8", "nf4"])
    func embeddingsInFewerBitsArePlanned(model: String, kind: String) throws {
        let folder = try ModelFolder(Checkout.model(model))
        let plans = try [nil, WeightStorage(kind)].map { storage in
            let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
                try folder.with(embeddings: storage).outline()
            }
            return try TrainingPlan(
                MethodChoice(LoRA.self), on: base, batch: PlannedBatch(rows: 2, prompt: 12, target: 5),
                configuration: TrainingConfiguration(), baseline: 1 << 20)
        }
        let loaded = try folder.with(embeddings: WeightStorage(kind)).load()
        #expect(plans[1].weightBytes == loaded.byteCount)
        #expect(plans[1].memory.weights < plans[0].memory.weights)
        #expect(plans[1].summary.total == plans[0].summary.total)
    }

    @Test func moreRowsTakeMoreMemory() throws {
        let configuration = try JSON.read(Checkout.model("llama/config.json"))
        let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) {
            try ModelRegistry.outline(configuration, file: "config.json")
        }
        let totals = try [32, 64, 128].map { rows in
            try TrainingPlan(
                MethodChoice(LoRA.self), on: base, batch: PlannedBatch(rows: rows, prompt: 200, target: 50),
                configuration: TrainingConfiguration(), baseline: 0
            ).totalBytes
        }
        // What a row adds is the same in a large batch and in a small one: attention works row by row.
        let (small, large) = (Double(totals[1] - totals[0]) / 32, Double(totals[2] - totals[1]) / 64)
        #expect(small > 0 && abs(large / small - 1) < 0.1)
    }

    /// A report names the formats that the base is stored in, and those of a method that quantizes it.
    @Test func reportsNameTheFormatsOfWeights() throws {
        let folder = try ModelFolder(Checkout.model("llama"))
        func report(_ weights: WeightStorage?, planned: WeightStorage?) throws -> (report: PlanReport, base: Int) {
            let outline = ModelOutline(try folder.with(weights: weights).outline())
            let base = PlannedBase(fileBytes: 0, usedVocabulary: nil) { try folder.with(weights: planned).outline() }
            let batch = try PlannedBatch(rows: 2, prompt: 12, target: 5)
            let plan = try TrainingPlan(
                MethodChoice(LoRA.self), on: base, batch: batch, configuration: TrainingConfiguration(), baseline: 0)
            return (
                PlanReport(outline: outline, batch: batch, configuration: TrainingConfiguration(), plans: [plan]),
                plan.weightBytes
            )
        }
        func text(_ report: PlanReport) -> String { report.text(bytes: { "<\($0)>" }, grouped: { String($0) }) }
        let dense = try report(nil, planned: nil)
        let packed = try report(WeightStorage("nf4"), planned: WeightStorage("nf4"))
        #expect(dense.base == dense.report.outline.parameterCount * 4)
        #expect(text(dense.report).contains("weights <\(dense.base)> in fp32\n"))
        #expect(packed.base == (try folder.with(weights: WeightStorage("nf4")).load().byteCount))
        #expect(text(packed.report).contains("weights <\(packed.base)> in nf4 and fp32\n"))
        #expect(packed.report.json["weightBytes"] == .integer(packed.base))
        #expect(!text(packed.report).contains("  weights: "))
        let quantizing = text(try report(nil, planned: WeightStorage("nf4")).report)
        #expect(quantizing.contains("weights <\(dense.base)> in fp32\n"))
        #expect(quantizing.contains("  weights: <\(packed.base)> in nf4 and fp32\n"))
    }
}
