import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// A fixture folder that `make_t5_fixtures.py` wrote.
struct T5Fixture {
    let folder: URL
    let expected: JSON

    init(_ name: String) throws {
        folder = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/\(name)")
        expected = try JSON.read(folder.appendingPathComponent("expected.json"))
    }

    var rows: [(input: [Int], target: [Int])] { expected.rows }

    func numbers(_ key: String) -> [Double] { (expected[key]?.array ?? []).compactMap(\.double) }
    func tokens(_ key: String) -> [[Int]] { (expected[key]?.array ?? []).map(\.integers) }
    func load() throws -> any LanguageModel { try ModelFolder(folder).load() }
}

@Suite struct T5ParityTests {
    static let variants = ["t5-v1.0", "t5-v1.1", "t5-tied-gated", "t5-half"]

    @Test(arguments: variants) func logitsAndLossEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        let batch = model.batch(fixture.rows, device: .cpu)
        let expected = (fixture.expected["logits"]?.array ?? []).flatMap { ($0.array ?? []).compactMap(\.double) }
        let logits = try withTorchErrors { withoutGradients { model.logits(batch).to(.float64).array(Double.self) } }
        #expect(expected.count == batch.targetCount * 96)
        #expect(relativeDifference(logits, expected) < 1e-4)
        let loss = try withTorchErrors { model.lossSum(batch, labelSmoothing: 0).item() } / Double(batch.targetCount)
        #expect(abs(loss - (fixture.expected["loss"]?.double ?? .nan)) < 1e-5 * loss)
    }

    @Test(arguments: variants) func gradientsEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        for (_, parameter) in model.parameters() { parameter.tensor.requiresGrad = true }
        let batch = model.batch(fixture.rows, device: .cpu)
        try withTorchErrors { (model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)).backward() }
        let expected = try SafetensorsFile(fixture.folder.appendingPathComponent("gradients.safetensors"))
        #expect(Set(expected.entries.keys) == Set(model.parameters().map(\.path)))
        for (path, parameter) in model.parameters() {
            let gradient = try #require(parameter.tensor.grad, "no gradient for \(path)")
            let wanted: [Double] = try expected.tensor(path).array()
            #expect(relativeDifference(gradient.array(), wanted) < 1e-3, "\(path)")
        }
    }

    @Test(arguments: variants) func greedyAndBeamSearchEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        let model = try fixture.load()
        let prompts = fixture.rows.map(\.input)
        let settings: [(String, GenerateParameters)] = [
            ("greedy", GenerateParameters(maxNewTokens: 12)),
            ("beam4", GenerateParameters(maxNewTokens: 12, beams: 4)),
            ("beam3Long", GenerateParameters(maxNewTokens: 12, beams: 3, lengthPenalty: 2)),
            ("greedyNoRepeat2", GenerateParameters(maxNewTokens: 12, noRepeatNgram: 2)),
            ("beam3NoRepeat1", GenerateParameters(maxNewTokens: 12, beams: 3, noRepeatNgram: 1)),
            ("greedyAtLeast9", GenerateParameters(maxNewTokens: 12, minNewTokens: 9)),
            ("beam3AtLeast9", GenerateParameters(maxNewTokens: 12, minNewTokens: 9, beams: 3)),
            ("beam3Early", GenerateParameters(maxNewTokens: 12, beams: 3, lengthPenalty: 0.5, earlyStopping: true)),
        ]
        for (key, parameters) in settings {
            let expected = fixture.tokens(key).map { Array($0.prefix { $0 != 1 }) }
            // transformers pads finished rows with 0 after the end token, which the prefix drops too.
            let batched = try Generator(model, parameters).generate(prompts)
            #expect(batched == expected, "\(key), batched")
            let alone = try prompts.map { try Generator(model, parameters).generate([$0])[0] }
            #expect(alone == expected, "\(key), one prompt at a time")
        }
    }

    @Test(arguments: variants) func twentyTrainingStepsEqualTransformers(name: String) throws {
        let fixture = try T5Fixture(name)
        for key in ["adamw", "adafactor", "adafactorScaled"] {
            let model = try fixture.load()
            let parameters = model.parameters().map(\.parameter)
            for parameter in parameters { parameter.tensor.requiresGrad = true }
            let optimizer: any Optimizer =
                switch key {
                case "adamw": AdamW(parameters, weightDecay: 0.01)
                case "adafactor": Adafactor(parameters, weightDecay: 0.01)
                default: Adafactor(parameters, scaleParameter: true)
                }
            let rates: [String: Double] = ["adamw": 1e-3, "adafactor": 2e-4, "adafactorScaled": 5e-4]
            let rate = try #require(rates[key])
            var losses: [Double] = []
            for step in 0..<20 {
                let batch = model.batch([fixture.rows[step % 3], fixture.rows[(step + 1) % 3]], device: .cpu)
                try withTorchErrors {
                    let loss = model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
                    loss.backward()
                    losses.append(loss.item())
                }
                optimizer.update(learningRate: rate)
                optimizer.clearGradients()
            }
            #expect(relativeDifference(losses, fixture.numbers(key)) < 1e-3, "\(key)")
        }
    }

    @Test func flanT5BaseHasItsKnownSize() throws {
        let configuration: JSON = [
            "model_type": "t5", "vocab_size": 32128, "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12,
            "num_decoder_layers": 12, "num_heads": 12, "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": false,
        ]
        let model = try ModelRegistry.outline(configuration, file: "config.json")
        #expect(model.parameterCount == 247_577_856)
    }
}
