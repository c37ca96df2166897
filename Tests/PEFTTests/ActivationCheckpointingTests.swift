import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// With gradient checkpointing everything is the same, bit for bit, for every method on every family.
@Suite struct ActivationCheckpointingTests {
    /// Of one pass with dropout: the loss and all gradients.
    private func pass(
        _ choice: MethodChoice, _ model: any LanguageModel, _ mode: ActivationCheckpointing.Mode
    ) throws -> (loss: Tensor, gradients: [Tensor?]) {
        let adapter = try Adapter(choice, on: model, seed: 3)
        try adapter.randomize(seed: 9, deviation: 0.05)
        let batch = model.batch(Models.rows(for: model), device: .cpu)
        return try withTorchErrors {
            let loss = DropoutScope.run(seed: 4, stream: 2) {
                ActivationCheckpointing.run(mode) {
                    model.computing { model.lossSum(batch, labelSmoothing: 0.1) }
                }
            }
            loss.backward()
            return (loss.detached(), adapter.parameters.map(\.tensor.grad))
        }
    }

    private func compare(
        _ choice: MethodChoice, _ mode: ActivationCheckpointing.Mode = .keepingInputs,
        _ model: () throws -> any LanguageModel
    ) throws {
        let plain = try pass(choice, model(), .off)
        let again = try pass(choice, model(), mode)
        #expect(again.loss.isIdentical(to: plain.loss))
        #expect(plain.gradients.contains { $0 != nil })
        for (a, b) in zip(again.gradients, plain.gradients) {
            #expect((a == nil) == (b == nil))
            if let a, let b { #expect(a.isIdentical(to: b)) }
        }
    }

    /// A base whose own dropout is live, which is off in most fixtures.
    private func dropping(_ name: String) throws -> any LanguageModel {
        let keys = [
            "dropout_rate", "attention_dropout", "embd_pdrop", "attn_pdrop", "resid_pdrop", "hidden_dropout_prob",
            "attention_probs_dropout_prob", "dropout",
        ]
        return try withTemporaryCopy(of: Checkout.model(name)) { copy in
            try JSON.rewrite(copy.appendingPathComponent("config.json")) { fields in
                for key in keys where fields[key] != nil { fields[key] = .number(0.2) }
            }
            return try ModelFolder(copy).load()
        }
    }

    @Test(arguments: ["lora", "prefix", "full"], ["t5-v1.1", "llama", "gpt2", "bert"])
    func dropoutDrawsTheSameMasks(method: String, base: String) throws {
        for mode in [ActivationCheckpointing.Mode.keepingInputs, .offloading] {
            try compare(.forTests(try PEFTMethods.named(method), on: base), mode) { try dropping(base) }
        }
    }

    @Test(arguments: MethodLawTests.cases) func everyMethodOnEveryFamily(_ law: MethodLawTests.Case) throws {
        var choice = law.choice
        if choice.configuration is LoRA.Configuration { try? choice.set("dropout", to: "0.2") }
        try compare(choice) { try Models.load(law.base) }
    }

    /// bf16 under autocast, where trained weights are narrowed in each pass.
    @Test(arguments: PEFTMethods.builtIn.map { $0.name }, ["t5-v1.1", "llama", "bert:classification"])
    func halfPrecision(name: String, base: String) throws {
        let choice = MethodChoice.forTests(try PEFTMethods.named(name), on: base)
        guard try fits(choice, base) else { return }
        try compare(choice) { try Models.load(base, dtype: .bfloat16) }
    }

    @Test(arguments: QuantizedBaseTests.storages, ["llama", "gpt2", "t5-v1.1"])
    func quantizedBases(storage: String, base: String) throws {
        guard storage != "bf16" || base != "gpt2" else { return }
        for targets in ["all-linear", "q,q_proj,c_attn"] {
            var choice = MethodChoice(try PEFTMethods.named("lora"))
            if targets == "all-linear" { try choice.set("targets", to: targets) }
            try choice.set("dropout", to: "0.1")
            try compare(choice) {
                try ModelFolder(Models.folder.appendingPathComponent(base))
                    .with(weights: WeightStorage(storage)).load()
            }
        }
    }

    /// Rows with adapters of their own: the backward pass knows their routes.
    @Test func rowsOfTwoAdapters() throws {
        func gradients(_ checkpoints: Bool) throws -> [Tensor] {
            let set = AdapterSet(on: try Models.load("llama"))
            try withTemporaryFolder { folder in
                for (seed, name) in ["a", "b"].enumerated() {
                    let choice = MethodChoice(
                        LoRA.self, LoRA.Configuration(rank: 2, alpha: 4, targets: ["all-linear"]))
                    let adapter = try Adapter(choice, on: Models.load("llama"), seed: UInt64(seed))
                    try adapter.randomize(seed: UInt64(7 + seed))
                    let saved = folder.appendingPathComponent(name)
                    try adapter.save(to: saved, base: "llama")
                    try set.add(AdapterFolder(saved), name: name)
                }
            }
            let adapters = try ["a", "b"].map { try set.named($0) }
            for adapter in adapters { adapter.setTrainable(true) }
            let batch = set.model.batch(Models.rows, device: .cpu)
            try MixedBatch(set).run(["a", nil, "b"]) {
                try withTorchErrors {
                    ActivationCheckpointing.run(checkpoints ? .keepingInputs : .off) {
                        set.model.lossSum(batch, labelSmoothing: 0)
                    }
                    .backward()
                }
            }
            return adapters.flatMap { $0.parameters.compactMap(\.tensor.grad) }
        }
        let (plain, again) = (try gradients(false), try gradients(true))
        #expect(!plain.isEmpty && plain.count == again.count)
        for (a, b) in zip(again, plain) { #expect(a.isIdentical(to: b)) }
    }
}
