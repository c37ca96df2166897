import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// Models of further families, which `make_family_fixtures.py` wrote, compute here what transformers computes.
@Suite struct FamilyParityTests {
    static let writers = ["llama", "qwen2", "qwen3", "gpt2"]
    static let all = writers + ["bert"]

    @Test(arguments: all) func logitsAndLossEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        let batch = model.batch(fixture.rows, device: .cpu)
        let expected = (fixture.expected["logits"]?.array ?? []).flatMap { ($0.array ?? []).compactMap(\.double) }
        let logits = try withTorchErrors { withoutGradients { model.logits(batch).to(.float64).array(Double.self) } }
        #expect(!expected.isEmpty)
        #expect(relativeDifference(logits, expected) < 1e-4)
        let loss = try withTorchErrors { model.lossSum(batch, labelSmoothing: 0).item() } / Double(batch.targetCount)
        #expect(abs(loss - (fixture.expected["loss"]?.double ?? .nan)) < 1e-5 * loss)
    }

    @Test(arguments: all) func gradientsEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        for (_, parameter) in model.parameters() { parameter.tensor.requiresGrad = true }
        let batch = model.batch(fixture.rows, device: .cpu)
        try withTorchErrors { (model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)).backward() }
        let expected = try SafetensorsFile(fixture.folder.appendingPathComponent("gradients.safetensors"))
        #expect(Set(expected.entries.keys) == Set(model.parameters().map(\.path)))
        for (path, parameter) in model.parameters() {
            let gradient = try #require(parameter.tensor.grad, "no gradient for \(path)").array(Double.self)
            let other = try expected.tensor(path).array(Double.self)
            // A key's bias doesn't change any softmax: its gradient is zero but for rounding.
            let scale = other.map(abs).max() ?? 0
            #expect(scale < 1e-6 || relativeDifference(gradient, other) < 1e-3, "\(path)")
        }
    }

    @Test(arguments: all) func twentyStepsEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        let parameters = model.parameters().map(\.parameter)
        for parameter in parameters { parameter.tensor = parameter.tensor.detached().clone() }
        for parameter in parameters { parameter.tensor.requiresGrad = true }
        let optimizer = AdamW(parameters, weightDecay: 0.01)
        let rows = fixture.rows
        let losses = try withTorchErrors {
            (0..<20).map { step in
                let batch = model.batch([rows[step % 3], rows[(step + 1) % 3]], device: .cpu)
                let loss = model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
                loss.backward()
                optimizer.update(learningRate: 1e-3)
                optimizer.clearGradients()
                return loss.item()
            }
        }
        #expect(relativeDifference(losses, fixture.numbers("losses")) < 1e-3)
    }

    @Test(arguments: writers, ["greedy", "beams", "blocked"]) func generatedIdsEqualTransformers(
        name: String, kind: String
    ) throws {
        let fixture = try T5Fixture(name)
        var parameters = GenerateParameters(maxNewTokens: 12)
        if kind == "beams" { parameters.beams = 3 }
        if kind == "blocked" { parameters.noRepeatNgram = 2 }
        // All rows in one batch, though their lengths differ.
        let made = try Generator(fixture.load(), parameters).generate(fixture.rows.map(\.input))
        #expect(made == fixture.tokens(kind))
    }

    @Test func anEncoderDoesNotGenerate() throws {
        let fixture = try T5Fixture("bert")
        let generator = try Generator(fixture.load(), GenerateParameters(maxNewTokens: 3))
        let error = try #require(throws: PEFTError.self) { try generator.generate([[1, 2]]) }
        #expect(error.problem.contains("can't generate"))
    }

    @Test func aClassifierThatAFileLacksBeginsAnew() throws {
        let fixture = try T5Fixture("bert")
        let folder = try ModelFolder(fixture.folder).classifying(["a", "b", "c", "d", "e"])
        #expect(
            try folder.load().parameters().first { $0.path == "classifier.weight" }?.parameter.tensor.shape == [
                5, 24,
            ])
    }
}
