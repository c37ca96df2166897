import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// CorDA and LoRA-GA begin where Hugging Face PEFT's do (`make_calibration_fixtures.py`).
@Suite struct CalibrationTests {
    private struct Fixture {
        let tensors: SafetensorsFile
        let metadata: [String: String]
        let rows: [(input: [Int], target: [Int])]

        init(_ name: String) throws {
            let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/calibration")
            tensors = try SafetensorsFile(folder.appendingPathComponent("\(name).safetensors"))
            metadata = tensors.metadata
            rows = try JSON.object(["rows": JSON.parse(Data((metadata["rows"] ?? "").utf8), name: name)]).rows
        }

        func choice() throws -> MethodChoice {
            var choice = MethodChoice(LoRA.self)
            for option in ["rank", "alpha", "targets", "init"] {
                try choice.set(option, to: try #require(metadata[option]))
            }
            try choice.set(metadata["init"] == "corda" ? "corda" : "lora-ga", to: try #require(metadata["settings"]))
            return choice
        }
    }

    /// Runs the pass over the rows, as the trainer does.
    private func calibrate(_ adapter: Adapter, on rows: [(input: [Int], target: [Int])]) throws -> any CalibratingHook
    {
        let hook = try #require(adapter.trainingHook() as? any CalibratingHook)
        var next = 0
        try hook.begin(totalSteps: 20) {
            guard next < rows.count else { return false }
            try withTorchErrors {
                switch hook.pass {
                case .examples:
                    withoutGradients { _ = UnreadOutputs.computed { adapter.model.loss([rows[next]]) } }
                case .gradients: adapter.model.loss([rows[next], rows[(next + 1) % rows.count]]).backward()
                }
            }
            hook.passed()
            next += 1
            return true
        }
        for parameter in adapter.parameters { parameter.tensor.grad = nil }
        return hook
    }

    @Test(arguments: ["corda-ipm", "corda-kpm", "lora-ga-stable", "lora-ga-alternating", "lora-ga-second"])
    func theStartIsHuggingFaces(name: String) throws {
        let fixture = try Fixture(name)
        let model = try Models.load("llama")
        let before = try model.scores(fixture.rows)
        let weights = model.snapshot()
        let adapter = try Adapter(fixture.choice(), on: model)
        _ = try calibrate(adapter, on: fixture.rows)
        #expect(adapter.attached.count == 6)
        for entry in adapter.attached {
            let update = try #require(entry.adapter as? CalibratedLoRAAdapter)
            let a = try fixture.tensors.tensor("\(entry.path).lora_A")
            let b = try fixture.tensors.tensor("\(entry.path).lora_B")
            // The signs of singular vectors are arbitrary.
            #expect(relativeDifference(update.a.abs(), a.abs()) < 1e-3, "\(entry.path)")
            #expect(relativeDifference(update.b.abs(), b.abs()) < 1e-3, "\(entry.path)")
            if name.hasPrefix("corda") {
                #expect(relativeDifference(update.b.matmul(update.a), b.matmul(a)) < 1e-3, "\(entry.path)")
            }
        }
        #expect(relativeDifference(try model.scores(fixture.rows), before) < 1e-5)
        #expect(model.changed(since: weights).isEmpty)
    }

    @Test(arguments: ["corda-ipm", "corda-kpm"]) func twentyStepsAreEqual(name: String) throws {
        let fixture = try Fixture(name)
        let adapter = try Adapter(fixture.choice(), on: Models.load("llama"))
        _ = try calibrate(adapter, on: fixture.rows)
        let rate = try #require(fixture.metadata["rate"].flatMap(Double.init))
        let losses = try adapter.train(steps: 20, rate: rate, rows: fixture.rows)
        #expect(relativeDifference(losses, try fixture.tensors.tensor("losses").array()) < 1e-3)
    }

    /// The file is plain LoRA of twice the rank over the model's own weights.
    @Test(arguments: ["corda-ipm", "lora-ga-stable"]) func filesArePlainLoRA(name: String) throws {
        let fixture = try Fixture(name)
        let model = try Models.load("llama")
        let adapter = try Adapter(fixture.choice(), on: model)
        _ = try calibrate(adapter, on: fixture.rows)
        try adapter.train(steps: 3, rate: 1e-2, rows: fixture.rows)
        let trained = try model.scores(fixture.rows)
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("adapter")
            try adapter.save(to: copy, base: "llama")
            let written = try AdapterFolder(copy)
            #expect(written.configuration["init_lora_weights"] == true)
            #expect(written.configuration["r"] == .integer(2 * (Int(fixture.metadata["rank"] ?? "") ?? 0)))
            #expect(written.configuration["corda_config"] ?? .null == .null)
            let again = try written.attach(to: Models.load("llama"))
            #expect(relativeDifference(try again.model.scores(fixture.rows), trained) < 1e-5)
        }
        try adapter.merge()
        #expect(relativeDifference(try model.scores(fixture.rows), trained) < 1e-5)
    }

    @Test func aCheckpointContinues() throws {
        let fixture = try Fixture("corda-kpm")
        let adapter = try Adapter(fixture.choice(), on: Models.load("llama"))
        let state = try calibrate(adapter, on: fixture.rows).state()
        let other = try Adapter(fixture.choice(), on: Models.load("llama"))
        let hook = try #require(other.trainingHook())
        try hook.restore(state, step: 1)
        for (from, to) in zip(adapter.parameters, other.parameters) {
            withoutGradients { to.tensor.copy(from: from.tensor) }
        }
        #expect(try other.model.scores(fixture.rows).isIdentical(to: adapter.model.scores(fixture.rows)))
        #expect(throws: PEFTError.self) { try hook.restore([:], step: 1) }
    }

    @Test func whatCannotBeInitializedIsNamed() throws {
        let model = try Models.load("llama")
        func attach(_ options: [(String, String)]) throws -> PEFTError {
            try failure {
                var choice = MethodChoice(LoRA.self)
                for (name, value) in options { try choice.set(name, to: value) }
                _ = try Adapter(choice, on: model)
            }
        }
        let random = try attach([("init", "lora_ga"), ("lora-ga", #"{"direction": "random"}"#)])
        #expect(random.problem.contains("'direction'"))
        let cached = try attach([("init", "corda"), ("corda", #"{"cache_file": "x"}"#)])
        #expect(cached.problem.contains("'cache_file'"))
        let table = try attach([("init", "corda"), ("targets", "embed_tokens")])
        #expect(table.problem.contains("embed_tokens"))
        // No data, and a rank with too few singular vectors.
        for (name, rank) in [("corda", "4"), ("lora_ga", "24")] {
            var choice = MethodChoice(LoRA.self)
            for (option, value) in [("init", name), ("rank", rank)] { try choice.set(option, to: value) }
            let adapter = try Adapter(choice, on: Models.load("llama"))
            let error = try failure { try adapter.trainingHook()?.begin(totalSteps: 1) { false } }
            #expect(error.problem.contains("q_proj"))
        }
    }
}
