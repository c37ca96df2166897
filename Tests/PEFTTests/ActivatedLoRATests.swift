import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// Adapters that act from an invocation on, alone and in mixed-adapter batches, are those of Hugging Face PEFT
/// (`make_lora_switch_fixtures.py`).
@Suite struct ActivatedLoRATests {
    private static let base = "llama"

    private struct Fixture {
        let set: AdapterSet
        let names: [String?]
        let prompts: [[Int]]
        let texts: [[Int]]
        /// Logits after each prompt.
        let logits: Tensor

        init() throws {
            let folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/activated")
            let expected = try JSON.read(folder.appendingPathComponent("expected.json"))
            func lists(_ key: String) -> [[Int]] {
                (expected[key]?.array ?? []).map { ($0.array ?? []).compactMap(\.int) }
            }
            set = AdapterSet(on: try Models.load(ActivatedLoRATests.base))
            for name in ["pair", "single", "plain"] {
                try set.add(AdapterFolder(folder.appendingPathComponent(name)), name: name)
            }
            names = (expected["adapters"]?.array ?? []).compactMap(\.string).map { $0 == "__base__" ? nil : $0 }
            (prompts, texts) = (lists("prompts"), lists("texts"))
            logits = try SafetensorsFile(folder.appendingPathComponent("expected.safetensors")).tensor("logits")
        }
    }

    private static let parameters: GenerateParameters = {
        var parameters = GenerateParameters()
        (parameters.maxNewTokens, parameters.minNewTokens) = (8, 8)
        return parameters
    }()

    @Test func mixedBatchesAreEqual() throws {
        let fixture = try Fixture()
        #expect(fixture.names.count == 9)
        let rows = fixture.prompts.map { (input: $0, target: [1]) }
        let logits = try MixedBatch(fixture.set).run(fixture.names) { try fixture.set.model.scores(rows) }
        #expect(relativeDifference(logits, fixture.logits) < 1e-4)
        let texts = try MixedBatch(fixture.set).generate(
            fixture.prompts, adapters: fixture.names, parameters: Self.parameters)
        #expect(texts == fixture.texts)
    }

    @Test func eachAloneIsEqual() throws {
        let fixture = try Fixture()
        for (row, name) in fixture.names.enumerated() {
            try fixture.set.activate(name)
            let logits = try fixture.set.model.scores([(fixture.prompts[row], [1])])
            let expected = fixture.logits.narrowed(axis: 0, row..<(row + 1))
            #expect(relativeDifference(logits, expected) < 1e-4, "row \(row)")
            let text = try Generator(fixture.set.model, Self.parameters).generate([fixture.prompts[row]])
            #expect(text == [fixture.texts[row]], "row \(row)")
        }
    }

    /// Beams of one prompt use the adapter of its invocation: one beam of two is the greedy text if it has no rival.
    @Test func beamsAreInvokedByTheirPrompt() throws {
        let fixture = try Fixture()
        try fixture.set.activate("pair")
        let prompts = [fixture.prompts[0], fixture.prompts[7]]
        var parameters = Self.parameters
        parameters.beams = 3
        let together = try Generator(fixture.set.model, parameters).generate(prompts)
        let alone = try prompts.map { try Generator(fixture.set.model, parameters).generate([$0])[0] }
        #expect(together == alone)
        try fixture.set.activate(nil)
        let base = try Generator(fixture.set.model, parameters).generate(prompts)
        #expect(base[0] != together[0] && base[1] == together[1])
    }

    /// As the server does: prompts in chunks, sequences of several adapters in one step.
    @Test func chunksOfAPromptAreInvokedByTheWhole() throws {
        let fixture = try Fixture()
        let batch = try SequenceBatch(fixture.set.model)
        let logits = try MixedBatch(fixture.set).run(fixture.names) { () -> [Tensor] in
            let sequences = fixture.prompts.map { CachedSequence(capacity: $0.count + 8) }
            var last = [Tensor?](repeating: nil, count: sequences.count)
            for start in stride(from: 0, to: 12, by: 2) {
                let inputs = zip(sequences, fixture.prompts).map { sequence, prompt in
                    // A prompt that ended goes on with any token.
                    SequenceBatch.Input(
                        sequence,
                        tokens: start < prompt.count ? Array(prompt[start..<min(start + 2, prompt.count)]) : [3],
                        prompt: prompt)
                }
                guard let output = try batch.step(inputs) else { continue }
                for (row, prompt) in fixture.prompts.enumerated()
                where (start..<(start + 2)).contains(prompt.count - 1) {
                    last[row] = output.narrowed(axis: 0, row..<(row + 1))
                }
            }
            return last.compactMap(\.self)
        }
        #expect(relativeDifference(Tensor.concatenated(logits), fixture.logits) < 1e-4)
    }

    @Test func earlierTokensAreTheBases() throws {
        let fixture = try Fixture()
        let text = [7, 9, 12, 90, 74, 89, 7, 9, 56, 31]
        // Each token of the text is a target.
        let rows = [(input: [3], target: text)]
        let before = try fixture.set.onBase { try fixture.set.model.scores(rows) }
        try fixture.set.activate("pair")
        let after = try fixture.set.model.scores(rows)
        // The target's first token is predicted at the input's only one.
        #expect(after.narrowed(axis: 0, 0..<7).isIdentical(to: before.narrowed(axis: 0, 0..<7)))
        #expect(relativeDifference(after.narrowed(axis: 0, 7..<8), before.narrowed(axis: 0, 7..<8)) > 1e-3)
        let without = [(input: [3], target: [7, 12, 9, 7])]
        let base = try fixture.set.onBase { try fixture.set.model.scores(without) }
        #expect(try fixture.set.model.scores(without).isIdentical(to: base))
    }

    @Test func aBatchWithoutInvocationHasZeroGradients() throws {
        let fixture = try HuggingFaceTests.Fixture("alora-bias")
        let adapter = try fixture.attach()
        try withTorchErrors { adapter.model.loss([([3, 4], [5, 6])]).backward() }
        for parameter in adapter.parameters {
            let gradient = try #require(parameter.tensor.grad)
            #expect(gradient.abs().sum().item() == 0)
        }
    }

    @Test func recomputedLayersAreInvokedToo() throws {
        let fixture = try HuggingFaceTests.Fixture("alora")
        func gradients(_ mode: ActivationCheckpointing.Mode) throws -> [Tensor] {
            let adapter = try fixture.attach()
            try withTorchErrors {
                ActivationCheckpointing.run(mode) { adapter.model.loss(fixture.rows) }.backward()
            }
            return adapter.parameters.compactMap(\.tensor.grad)
        }
        let (plain, again) = (try gradients(.off), try gradients(.keepingInputs))
        #expect(plain.count == again.count && !plain.isEmpty)
        for (a, b) in zip(plain, again) { #expect(a.isIdentical(to: b)) }
    }

    /// Without all last-layer outputs, those that are read are the same.
    @Test func selectedTokensAreInvoked() throws {
        let fixture = try HuggingFaceTests.Fixture("alora")
        let model = try fixture.attach().model
        let all = try UnreadOutputs.computed { try model.scores(fixture.rows) }
        #expect(relativeDifference(try model.scores(fixture.rows), all) < 1e-5)
    }

    @Test func itIsNotMerged() throws {
        let adapter = try HuggingFaceTests.Fixture("alora").attach()
        let error = try failure { try adapter.merge() }
        #expect(error.problem.contains("can't be merged"))
        #expect(!adapter.isMerged && adapter.isActive)
    }

    @Test(arguments: [
        (["targets": "q_proj,lm_head"], "the output layer 'lm_head'"),
        (["targets": "embed_tokens"], "can't adapt the embedding"),
        (["dora": "true", "targets": "q_proj"], "can't be combined with DoRA"),
        (["slices": "q,v", "targets": "q_proj"], "can't be combined"),
    ])
    func whatCannotBeInvokedIsRefused(options: [String: String], reason: String) throws {
        var choice = MethodChoice(ALoRA.self)
        try choice.set("invocation-tokens", to: "7,9")
        for (option, value) in options { try choice.set(option, to: value) }
        let error = try failure { _ = try Adapter(choice, on: Models.load(Self.base)) }
        #expect(error.problem.contains(reason), "\(error)")
        #expect(error.remedy != nil)
    }

    @Test func itNeedsAnInvocation() throws {
        let error = try failure { _ = try Adapter(MethodChoice(ALoRA.self), on: Models.load(Self.base)) }
        #expect(error.problem == "the method alora has no invocation")
        #expect(throws: PEFTError.self) {
            var choice = MethodChoice(ALoRA.self)
            try choice.set("invocation-tokens", to: "x")
        }
    }
}
