import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import PEFT

/// What the last layer would compute for tokens that nothing reads is left out, and nothing else changes.
@Suite struct UnreadOutputsTests {
    private func pass(_ law: MethodLawTests.Case) throws -> (loss: Double, gradients: [Tensor?]) {
        let model = try Models.load(law.base)
        let adapter = try Adapter(law.choice, on: model, seed: 3)
        try adapter.randomize(seed: 9, deviation: 0.05)
        let loss = try withTorchErrors {
            let loss = model.loss()
            loss.backward()
            return loss
        }
        return (loss.item(), adapter.parameters.map(\.tensor.grad))
    }

    @Test(arguments: MethodLawTests.cases) func everyMethodOnEveryFamily(_ law: MethodLawTests.Case) throws {
        let whole = try UnreadOutputs.computed { try pass(law) }
        let part = try pass(law)
        #expect(abs(part.loss - whole.loss) <= 1e-5 * abs(whole.loss))
        let scale = whole.gradients.compactMap { $0?.abs().max().item() }.max() ?? 0
        for (a, b) in zip(part.gradients, whole.gradients) {
            #expect((a == nil) == (b == nil))
            if let a, let b { #expect((a - b).abs().max().item() <= 1e-5 * scale) }
        }
    }

    /// Turns in the middle of a row bear loss, those behind them don't.
    @Test(arguments: ["llama", "decoders/gemma2", "decoders/phi3", "decoders/cohere2", "decoders/ministral3", "gpt2"])
    func someTokensBearLoss(base: String) throws {
        let model = try Models.load(base)
        let whole = model.batch(Models.rows, device: .cpu)
        let kept = Tensor([0, 1, 4, 5, 9, 12])
        let positions = try #require(whole.positions), outputs = try #require(whole.outputs)
        let batch = TrainingBatch(
            input: whole.input, decoder: nil, targets: whole.targets.selecting(kept),
            positions: positions.selecting(kept), outputs: OutputSpans(outputs.spans, kept: kept))
        let (part, all) = try withTorchErrors {
            withoutGradients { (model.logits(batch), UnreadOutputs.computed { model.logits(batch) }) }
        }
        #expect(part.dim(0) == 6)
        #expect(relativeDifference(part, all) <= 1e-5)
    }

    /// Counts the tokens that a projection sees.
    private final class Counter: Module, LinearAdapter {
        var tokens: [Int] = []
        func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor {
            tokens.append(x.dim(0))
            return base(x)
        }
        func merged(into weight: Tensor) -> Tensor { weight }
    }

    private func counted(_ model: any LanguageModel, _ suffix: String, _ body: () throws -> Void) throws -> [Int] {
        let linears = model.namedModules().filter { $0.path.hasSuffix(suffix) }.compactMap { $0.module as? Linear }
        let counters = linears.map { linear in
            let counter = Counter()
            _ = linear.attach(counter, route: nil)
            return counter
        }
        defer { for (linear, counter) in zip(linears, counters) { linear.detach(counter) } }
        try withTorchErrors { try withoutGradients(body) }
        return counters.flatMap(\.tokens)
    }

    @Test func decodersLeaveOutWhatBearsNoLoss() throws {
        let model = try Models.load("llama")
        let batch = model.batch(Models.rows, device: .cpu)
        for projection in ["down_proj", "q_proj", "o_proj"] {
            let tokens = try counted(model, projection) { _ = model.lossSum(batch, labelSmoothing: 0) }
            #expect(tokens.last == batch.targetCount)
            #expect(tokens.dropLast().allSatisfy { $0 == batch.input.tokens })
        }
        let keys = try counted(model, "k_proj") { _ = model.lossSum(batch, labelSmoothing: 0) }
        #expect(keys.allSatisfy { $0 == batch.input.tokens })
        // Reading a prompt predicts nothing; the first step does.
        let prompts = PackedSequences([[5, 6, 7], [8, 9]], device: .cpu)
        let read = try counted(model, "down_proj") { _ = model.startDecoding(prompts, capacity: 4, beams: 1) }
        #expect(read.last == 0 && read.dropLast().allSatisfy { $0 == 5 })
    }

    @Test func encodersReadWhatSpeaksForTheRow() throws {
        let model = try Models.load("bert:classification")
        let batch = model.batch(Models.rows(for: model), device: .cpu)
        let tokens = try counted(model, "intermediate.dense") { _ = model.logits(batch) }
        #expect(tokens.last == batch.input.rows)
        #expect(tokens.dropLast().allSatisfy { $0 == batch.input.tokens })
    }
}
