import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

@Suite struct AdapterCheckTests {
    private func check(
        _ method: any PEFTMethod.Type = LoRA.self, on base: String = "t5-v1.1", randomized: Bool = true,
        _ change: (URL) throws -> Void = { _ in }
    ) throws -> AdapterCheck {
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("saved")
            let adapter = try Adapter(MethodChoice(method), on: Models.load("t5-v1.1"))
            if randomized { try adapter.randomize(seed: 4) }
            try adapter.save(to: saved, base: "t5-v1.1")
            try change(saved)
            let model = try Models.load(base)
            let before = try model.scores()
            let check = try AdapterCheck(
                AdapterFolder(saved), on: model, batches: [model.batch(Models.rows, device: .cpu)])
            #expect(try model.scores().isIdentical(to: before))
            return check
        }
    }

    @Test(
        arguments: [LoRA.self, DoRA.self, IA3.self, PromptTuning.self, Houlsby.self, LayerNormTuning.self]
            as [any PEFTMethod.Type])
    func aTrainedAdapterIsEffective(method: any PEFTMethod.Type) throws {
        let check = try check(method)
        #expect(check.fits && check.isEffective)
        #expect(check.problems.isEmpty)
        #expect(check.sites.count > 0 && check.sites.allSatisfy { $0.strength > 0 })
        #expect((check.effect?.divergence ?? 0) > 0)
    }

    /// A bias that begins as 0 has no relative change.
    @Test func changesOfZeroAreNorms() throws {
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("saved")
            let model = try Models.load("bert:classification")
            let adapter = try Adapter(MethodChoice(LoRA.self), on: model)
            try adapter.randomize(seed: 4)
            try adapter.save(to: saved, base: "bert")
            try adapter.deactivate()
            let check = try AdapterCheck(
                AdapterFolder(saved), on: model, batches: [model.batch(Models.rows(for: model), device: .cpu)])
            #expect(check.fits && check.isEffective)
            #expect(check.sites.allSatisfy { $0.strength < 1e6 })
            let norms = check.sites.filter(\.isNorm)
            #expect(
                norms.map(\.path) == ["classifier.bias"] && norms.allSatisfy { !$0.isRelativeNorm && $0.strength > 0 }
            )
        }
    }

    /// Tokens that the sample lacks show what an adapter of theirs does.
    @Test(arguments: ["llama", "t5-v1.1"]) func tokensOutsideOfTheSampleCount(base: String) throws {
        try withTemporaryFolder { folder in
            let saved = folder.appendingPathComponent("saved")
            let model = try Models.load(base)
            var choice = MethodChoice(TrainableTokens.self)
            // None of the sample rows holds them.
            let used = Set(Models.rows.flatMap { $0.input + $0.target })
            let tokens = (2..<96).filter { !used.contains($0) }.prefix(2)
            try choice.set("trainable-tokens", to: tokens.map(String.init).joined(separator: ","))
            let adapter = try Adapter(choice, on: model)
            try adapter.randomize(seed: 4)
            try adapter.save(to: saved, base: base)
            try adapter.deactivate()
            // A row whose targets are the end alone, so that a tied output layer shows nothing either.
            let check = try AdapterCheck(
                AdapterFolder(saved), on: model, batches: [model.batch(Models.rows, device: .cpu)])
            #expect(check.fits && check.isEffective)
            #expect(check.warnings.contains { $0.contains("none of the tokens that the adapter changes") })
        }
    }

    @Test func anUntrainedAdapterDoesNothing() throws {
        let check = try check(randomized: false)
        #expect(check.fits && !check.isEffective)
        #expect(check.warnings.contains { $0.contains("lora_B") && $0.contains("has no effect") })
        #expect(check.warnings.contains { $0.contains("changes no logit") })
        #expect(check.refusal?.contains("changes no logit") == true)
        // A module may be one that the sample doesn't use, such as an expert's.
        var other = check
        other.sites[0].strength = 0.01
        #expect(other.refusal == nil)
        #expect(try self.check().refusal == nil)
    }

    @Test func everyMismatchIsListed() throws {
        let check = try check(on: "t5-v1.0")
        #expect(!check.fits || check.isEffective)
        let other = try self.check { folder in try rewriteConfiguration(folder) { $0["r"] = 3 } }
        #expect(!other.fits)
        #expect(other.problems.count == 32)
        #expect(other.effect == nil)
        #expect(other.groups.map(\.tensors.count) == [32])
        #expect(other.groups[0].kind.contains("shape"))
        #expect(other.warnings.contains { $0.contains("have rank 8, but adapter_config.json says 3") })
        let wider = try self.check { folder in
            try rewriteTensors(folder) {
                for name in $0.keys where name.contains("lora_A") { $0[name] = .ones([8, 77]) }
            }
        }
        #expect(wider.warnings.contains { $0.contains("inputs of size 77") && $0.contains("another model") })
        let mixed = try self.check { folder in
            try rewriteConfiguration(folder) { $0["r"] = 3 }
            try rewriteTensors(folder) {
                let names = $0.keys.sorted()
                $0["base_model.model.nowhere.lora_A.weight"] = $0.removeValue(forKey: names[0])
            }
        }
        #expect(mixed.groups.map(\.tensors.count).sorted() == [1, 1, 31])
        #expect(mixed.problems.count == 33)
    }

    @Test func settingsThatNameNothingAreNoted() throws {
        let check = try check { folder in
            try rewriteConfiguration(folder) {
                $0["target_modules"] = ["q", "v", "query_key_value"]
                $0["exclude_modules"] = ["dense"]
                $0["rank_pattern"] = ["SelfAttention.q": 8, "q": 8]
                $0["alpha_pattern"] = ["SelfAttention.q": 3, "q": 4]
            }
        }
        #expect(check.fits)
        #expect(check.warnings.contains { $0.contains("'query_key_value'") && $0.contains("target_modules") })
        #expect(check.warnings.contains { $0.contains("'dense'") && $0.contains("exclude_modules") })
        #expect(check.warnings.contains { $0.contains("several patterns in 'alpha_pattern'") })
        #expect(!check.warnings.contains { $0.contains("several patterns in 'rank_pattern'") })
        #expect(check.types == ["float32": 32])
        #expect(check.sites.allSatisfy { $0.rank == 8 && $0.scale != nil })
        let scales = Dictionary(check.sites.map { ($0.path, $0.scale ?? 0) }, uniquingKeysWith: { $1 })
        #expect(scales["encoder.block.0.layer.0.SelfAttention.q"] == 3.0 / 8)
        #expect(scales["encoder.block.0.layer.0.SelfAttention.v"] == 2)
    }

    /// Numbers, but none that a model can compute with.
    @Test func valuesThatOverflowAreAProblem() throws {
        let check = try check { folder in
            try rewriteTensors(folder) { for tensor in $0.values { tensor.fill(3e38) } }
        }
        #expect(!check.fits && check.effect == nil)
        #expect(check.problems.contains { $0.contains("logits are NaN or infinite") })
    }

    @Test func severalTypesAreNoted() throws {
        let check = try check { folder in
            try rewriteTensors(folder) {
                let name = $0.keys.sorted()[0]
                $0[name] = $0[name]?.to(.bfloat16)
            }
        }
        #expect(check.fits && check.types == ["float32": 31, "bfloat16": 1])
        #expect(check.warnings.contains { $0.contains("mixed dtypes") })
    }

    @Test func aTargetThatMatchesNothingIsAProblem() throws {
        let check = try check { folder in try rewriteConfiguration(folder) { $0["target_modules"] = ["query"] } }
        #expect(check.problems.count == 1)
        #expect(check.problems[0].contains("'query' matches no projection"))
    }

    @Test func patternsWithoutEffectAreNoted() throws {
        let check = try check { folder in try rewriteConfiguration(folder) { $0["alpha_pattern"] = ["vv": 3] } }
        #expect(check.fits)
        #expect(check.warnings.contains { $0.contains("'vv'") && $0.contains("no effect") })
    }

    @Test func scalesAreWorkedOutAnew() throws {
        let check = try check { folder in
            try rewriteConfiguration(folder) {
                $0["alpha_pattern"] = ["SelfAttention.q": 3]
                $0["use_rslora"] = true
            }
        }
        #expect(
            Set(check.scales.map { ($0.value * 1e6).rounded() }) == [
                (3 / 8.0.squareRoot() * 1e6).rounded(), (16 / 8.0.squareRoot() * 1e6).rounded(),
            ])
        #expect(check.scales.allSatisfy { abs($0.value - $0.asked) < 1e-12 })
        #expect(check.scales.reduce(0) { $0 + $1.places } == 16)
    }

    @Test func valuesThatAreNoNumbersAreAProblem() throws {
        let check = try check { folder in
            let file = folder.appendingPathComponent("adapter_model.safetensors")
            let stored = try SafetensorsFile(file)
            let tensors = try Dictionary(
                uniqueKeysWithValues: stored.entries.keys.map { ($0, try stored.tensor($0).clone()) })
            let name = try #require(tensors.keys.sorted().first)
            tensors[name]?.fill(.nan)
            try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: file)
        }
        #expect(!check.fits)
        #expect(check.problems.contains { $0.contains("NaN or infinite values") })
    }

    @Test func mergingDriftsByRounding() throws {
        let adapter = try Adapter(MethodChoice(LoRA.self), on: Models.load("t5-v1.1"))
        try adapter.randomize(seed: 4)
        let batches = [adapter.model.batch(Models.rows, device: .cpu)]
        let drifts = try MergeDrift.merging(adapter, on: batches, types: [.float32, .float16, .bfloat16])
        #expect(adapter.isMerged)
        #expect(drifts.map(\.dtype) == ["float32", "float16", "bfloat16"])
        #expect(drifts[0].largest < 1e-3 && drifts[0].agreement == 1)
        #expect(drifts[0].mean < drifts[1].mean && drifts[1].mean < drifts[2].mean)
        #expect(drifts[0].storing == 0 && drifts[1].storing > 0 && drifts[1].storing < drifts[2].storing)
        let prompt = try Adapter(MethodChoice(PromptTuning.self), on: Models.load("t5-v1.1"))
        #expect(
            try failure { _ = try MergeDrift.merging(prompt, on: batches, types: [.float32]) }.problem.contains(
                "can't be merged"))
    }
}
