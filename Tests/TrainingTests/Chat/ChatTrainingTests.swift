import Foundation
import LanguageModels
import PEFT
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import Training

@Suite struct ChatTrainingTests {
    private let fixture: ChatFixture

    init() throws { fixture = try ChatFixture() }

    /// 20 steps on all rows at once, as the script trains.
    @Test func lossesEqualTransformers() throws {
        let rows = try fixture.encoder().encode(fixture.conversations()).examples
        let adapter = try Adapter(MethodChoice(FullFineTuning.self), on: fixture.folder.load())
        var settings = TrainingConfiguration()
        (settings.batchSize, settings.steps, settings.schedule) = (rows.count, 20, "constant")
        (settings.learningRate, settings.weightDecay, settings.clip) = (1e-3, 0.01, 0)
        let trainer = try Trainer(adapter, training: rows, validation: [], configuration: settings)
        let losses = try trainer.run().history.training.map(\.loss)
        let expected = try #require(fixture.expected["losses"]?.array).compactMap(\.double)
        #expect(losses.count == 20 && expected.count == 20)
        for (step, (loss, wanted)) in zip(losses, expected).enumerated() {
            #expect(abs(loss - wanted) < 1e-3, "step \(step + 1): \(loss), not \(wanted)")
        }
    }

    /// Rows of several turns in one batch don't see each other: the sums of loss and gradients are those of the rows one
    /// by one, and positions begin anew.
    @Test func packedRowsEqualSingleOnes() throws {
        let rows = try fixture.encoder().encode(fixture.conversations()).examples
        #expect(rows.contains { $0.loss != nil } && Set(rows.map(\.length)).count > 2)
        let model = try fixture.folder.load()
        func run(_ parts: [[EncodedExample]]) throws -> (loss: Double, tokens: Int, gradients: [[Float]]) {
            let parameters = model.parameters().map(\.parameter)
            for parameter in parameters {
                parameter.tensor.requiresGrad = true
                parameter.tensor.grad = nil
            }
            var (loss, tokens) = (0.0, 0)
            try withTorchErrors {
                for part in parts {
                    let batch = model.batch(part)
                    let sum = model.lossSum(batch, labelSmoothing: 0)
                    sum.backward()
                    (loss, tokens) = (loss + sum.item(), tokens + batch.targetCount)
                }
            }
            return (loss, tokens, parameters.map { $0.tensor.grad?.array() ?? [] })
        }
        let (packed, single) = (try run([rows]), try run(rows.map { [$0] }))
        #expect(packed.tokens == single.tokens && packed.tokens == rows.reduce(0) { $0 + $1.lossCount })
        #expect(abs(packed.loss - single.loss) < 1e-5 * single.loss)
        for (a, b) in zip(packed.gradients, single.gradients) {
            let scale = b.map(abs).max() ?? 0
            #expect(scale > 0 && zip(a, b).allSatisfy { abs($0 - $1) < 1e-4 * max(scale, 1e-3) })
        }
    }

    @Test func onlyMarkedTokensBearLoss() throws {
        let row = EncodedExample(input: [5, 6], target: [7, 8, 9, 10], loss: [true, false, true, false])
        let model = try fixture.folder.load()
        try withTorchErrors {
            let batch = model.batch([row, EncodedExample(input: [11], target: [12, 13])])
            let (targets, positions): ([Int], [Int]) = (batch.targets.array(), batch.positions?.array() ?? [])
            #expect(targets == [7, 9, 12, 13])
            #expect(positions == [1, 3, 4, 5])
            // The last token with loss is predicted and never read.
            let ids: [Int] = batch.input.ids.array()
            #expect(ids == [5, 6, 7, 8, 11, 12] && batch.input.offsets == [0, 4, 6])
            // The same number as from the scores of the whole rows.
            let scores = model.logits(model.batch([EncodedExample(input: [5, 6], target: [7, 8, 9])])).logSoftmax()
            let log: [Float] = scores.array()
            let width = scores.dim(1)
            let wanted = -Double(log[7] + log[2 * width + 9])
            #expect(abs(model.lossSum(model.batch([row]), labelSmoothing: 0).item() - wanted) < 1e-4)
        }
    }

    @Test func fingerprintsTellMasksApart() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("chat-\(UUID().uuidString)")
        defer { try? FileManager.default.removeItem(at: folder) }
        func trainer(_ loss: ChatLoss) throws -> Trainer {
            let rows = try fixture.encoder(loss: loss).encode(fixture.conversations()).examples
            var settings = TrainingConfiguration()
            (settings.steps, settings.checkpointEvery) = (4, 1)
            return try Trainer(
                Adapter(MethodChoice(FullFineTuning.self), on: fixture.folder.load()), training: rows, validation: [],
                configuration: settings, checkpointFolder: folder)
        }
        #expect(throws: TrainingInterrupted.self) { try trainer(.assistant).run { _ in false } }
        #expect(throws: PEFTError.self) { try trainer(.last).resume() }
        #expect(try trainer(.assistant).resume() == 1)
    }
}
