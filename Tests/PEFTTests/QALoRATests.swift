import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// QA-LoRA over bases that are quantized in groups: merging moves zeros and nothing else.
@Suite struct QALoRATests {
    private static func choice(groupSize: Int? = nil, _ pooling: QALoRA.Pooling = .sum) -> MethodChoice {
        var configuration = QALoRA.Configuration()
        (configuration.rank, configuration.alpha) = (3, 2)
        (configuration.groupSize, configuration.pooling) = (groupSize, pooling)
        configuration.selection = TargetSelection(targets: ["all-linear"])
        return MethodChoice(QALoRA.self, configuration)
    }

    private static func weights(_ model: any LanguageModel) -> [GroupQuantizedWeight] {
        model.namedModules().compactMap { ($0.module as? Linear)?.weight as? GroupQuantizedWeight }
    }

    @Test(arguments: ["plain", "second-format", "two-bits", "real-zeros", "columns"])
    func mergingMovesZerosAlone(base: String) throws {
        // Whole columns have 64 and 96 inputs: one group size for both there isn't.
        var choice = Self.choice()
        if base == "columns" {
            try choice.set("targets", to: "q_proj,gate_proj")
            try choice.set("group-size", to: "64")
        }
        for (dtype, tolerance) in [(DType.float32, 1e-5), (.float64, 1e-13)] {
            let model = try Models.load("gptq/\(base)", dtype: dtype)
            let rows = Models.rows
            let plain = try model.scores(rows)
            let adapter = try Adapter(choice, on: model, seed: 3)
            try adapter.randomize(seed: 5, deviation: 0.1)
            let before = Self.weights(model)
            let output = try model.scores(rows)
            #expect(relativeDifference(output, plain) > 1e-2)
            try adapter.merge()
            let after = Self.weights(model)
            #expect(after.count == before.count)
            for (a, b) in zip(before, after) {
                #expect(a.integers === b.integers)
                #expect(a.scales === b.scales)
            }
            #expect(relativeDifference(try model.scores(rows), output) < tolerance)
            try adapter.unmerge()
            #expect(try model.scores(rows).isIdentical(to: output))
        }
    }

    /// The file of a merged model computes the same, with zeros of any kind; rounding them loses what is reported.
    @Test func mergedFoldersAreAsSmallAsTheBase() throws {
        let model = try Models.load("gptq/plain")
        // Some projections keep their whole zeros.
        var choice = Self.choice()
        try choice.set("targets", to: "q_proj,up_proj,down_proj")
        let adapter = try Adapter(choice, on: model, seed: 3)
        try adapter.randomize(seed: 5, deviation: 0.1)
        let output = try model.scores()
        let batch = model.batch(Models.rows(for: model), device: .cpu)
        let drifts = try MergeDrift.merging(adapter, on: [batch], types: [.float32])
        #expect(drifts.map(\.dtype) == ["float32", "zeros float16", "zeros rounded"])
        #expect(drifts[0].largest < 1e-5)
        #expect(drifts[0].mean < drifts[1].mean)
        #expect(drifts[1].mean < drifts[2].mean)
        let linears = model.namedModules().compactMap { $0.module as? Linear }
        let exact = linears.map(\.weight)
        for (type, drift) in [(DType.float32, drifts[0]), (.float16, drifts[1]), (nil, drifts[2])] {
            // From the exact zeros each time: rounding twice is another number.
            for (linear, weight) in zip(linears, exact) { linear.weight = weight }
            model.storeZeroPoints(as: type)
            let merged = try model.scores()
            let largest: [Float] = (merged - output).abs().array()
            #expect(abs(Double(try #require(largest.max())) - drift.largest) < 1e-6)
            try withTemporaryFolder { folder in
                let saved = folder.appendingPathComponent("merged")
                try model.save(to: saved)
                let read = try ModelFolder(saved).load()
                // Read again, a head in 16 bits stays in them and is multiplied by sums in another order.
                #expect(try relativeDifference(read.scores(), merged) < 1e-6)
                let settings = try JSON.read(saved.appendingPathComponent("config.json"))["quantization_config"]
                #expect(settings?["quant_method"] == "gptq")
                #expect(settings?["swift_peft_zeros"] == type.map { .string($0.rawValue) })
                // Other readers find rounded zeros where they look for them.
                let file = try SafetensorsFile(saved.appendingPathComponent("model.safetensors"))
                #expect(file.entries["model.layers.0.mlp.up_proj.qzeros"]?.shape == [2, 12])
                #expect((file.entries["model.layers.0.mlp.up_proj.zeros"] != nil) == (type != nil))
            }
        }
    }

    /// The same update under three names.
    @Test func poolingsAreScales() throws {
        func scores(_ pooling: QALoRA.Pooling, alpha: Double) throws -> Tensor {
            var configuration = QALoRA.Configuration()
            (configuration.rank, configuration.alpha) = (2, alpha)
            (configuration.groupSize, configuration.pooling) = (16, pooling)
            configuration.selection = TargetSelection(targets: ["q_proj"])
            let adapter = try Adapter(
                MethodChoice(QALoRA.self, configuration), on: Models.load("gptq/plain"), seed: 3)
            try adapter.randomize(seed: 5)
            let output = try adapter.model.scores()
            try withTemporaryFolder { folder in
                let saved = folder.appendingPathComponent("saved")
                try adapter.save(to: saved, base: "gptq/plain")
                let json = try AdapterFolder(saved).configuration
                // Hugging Face's form: alpha / r · (the mean times four groups).
                #expect(json["swift_peft_qalora_pooling"] == nil)
                #expect(json["qalora_group_size"] == 16)
                let loaded = try AdapterFolder(saved).attach(to: Models.load("gptq/plain"))
                #expect(relativeDifference(try loaded.model.scores(), output) < 1e-6)
            }
            return output
        }
        let reference = try scores(.scaledMean, alpha: 4)
        #expect(relativeDifference(try scores(.sum, alpha: 1), reference) < 1e-6)
        #expect(relativeDifference(try scores(.mean, alpha: 16), reference) < 1e-6)
    }

    @Test func groupsComeFromTheBase() throws {
        #expect(try Adapter(MethodChoice(QALoRA.self), on: Models.load("gptq/plain")).choice.label.contains("g 32"))
        let outline = ModelOutline(try Models.load("gptq/columns"))
        #expect(outline.linears.first { $0.path.hasSuffix("q_proj") }?.groupSize == 64)
    }

    @Test func whatDoesNotFitSaysWhy() throws {
        let uneven = try failure {
            _ = try Adapter(Self.choice(groupSize: 64), on: Models.load("gptq/plain"))
        }
        #expect(uneven.problem.contains("the 96 inputs"))
        #expect(uneven.remedy?.contains("32, 16, 8, 4, 2") == true)
        func merging(_ base: String, groupSize: Int) throws -> PEFTError {
            let model = try Models.load("gptq/\(base)")
            let adapter = try Adapter(Self.choice(groupSize: groupSize), on: model)
            try adapter.randomize(seed: 1)
            let output = try model.scores()
            let error = try failure { try adapter.merge() }
            #expect(try model.scores().isIdentical(to: output))
            return error
        }
        #expect(
            try merging("plain", groupSize: 16).problem.contains("can't be merged into a weight with group size 32"))
        #expect(try merging("act-order", groupSize: 32).problem.contains("desc_act"))
    }

    /// A plain LoRA over packed integers trains, leaves them alone, and merges with what rounding anew loses.
    @Test func loraTrainsOverQuantizedWeights() throws {
        let model = try Models.load("gptq/plain")
        let before = model.snapshot()
        let adapter = try Adapter(
            MethodChoice(LoRA.self, .init(rank: 2, alpha: 4, targets: ["q_proj", "down_proj"])), on: model)
        let losses = try adapter.train(steps: 12, rate: 1e-2)
        #expect(losses[9] < losses[0])
        #expect(model.changed(since: before).isEmpty)
        let output = try model.scores()
        try adapter.merge()
        #expect(Self.weights(model).count == 14)
        let drift = relativeDifference(try model.scores(), output)
        #expect(drift > 1e-4 && drift < 0.5)
        try adapter.unmerge()
        #expect(try model.scores().isIdentical(to: output))
    }
}
