import Foundation
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

/// Positions that end, and ids outside of the vocabulary.
@Suite struct InputLimitTests {
    private func fixture(_ name: String) throws -> any LanguageModel {
        try ModelFolder(#require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/\(name)")).load()
    }

    @Test func generationEndsAtTheLastPosition() throws {
        let model = try fixture("gpt2")
        let limit = try #require(model.positionLimit)
        #expect(limit == 128)
        for beams in [1, 2] {
            let generator = try Generator(
                model, GenerateParameters(maxNewTokens: 20, minNewTokens: 20, beams: beams))
            var ended: [Int] = []
            let prompts = [Array(repeating: 5, count: 120), [7, 8], Array(repeating: 9, count: 128)]
            let made = try generator.generate(prompts, onLastPosition: { ended.append($0) })
            // The last token is made at the last position and not read.
            #expect(made.map(\.count) == [9, 20, 1] && ended == [0, 2])
            let long = Array(repeating: 5, count: 129)
            let error = try #require(throws: PEFTError.self) { try generator.generate([[4], long]) }
            #expect(error.problem.contains("prompt 2 has 129 tokens") && error.problem.contains("128 positions"))
            #expect(error.remedy?.contains("--max-input 128") == true)
        }
    }

    @Test(arguments: ["gpt2", "bert"]) func longRowsFailByName(name: String) throws {
        let model = try fixture(name)
        let limit = try #require(model.positionLimit)
        let batch = model.batch(
            [TrainingRow(input: Array(repeating: 5, count: limit + 1), target: [1])], device: .cpu)
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors { withoutGradients { model.logits(batch).sum().item() } }
        }
        #expect(error.problem.contains("\(limit + 1) tokens") && error.problem.contains("\(limit) positions"))
    }

    @Test(arguments: ["gpt2", "bert", "llama", "t5-v1.1"]) func unknownIdsFailByName(name: String) throws {
        let model = try fixture(name)
        let id = model.vocabularySize
        let batch = model.batch([TrainingRow(input: [5, id, 6], target: [1])], device: .cpu)
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors { withoutGradients { model.logits(batch).sum().item() } }
        }
        #expect(error.problem.contains("token id \(id)") && error.problem.contains("vocabulary of \(id)"))
        guard model.generates else { return }
        let other = try #require(throws: PEFTError.self) {
            try Generator(model, GenerateParameters()).generate([[5, id]])
        }
        #expect(other == error)
    }

    @Test func rotaryPositionsDontEnd() throws {
        #expect(try fixture("llama").positionLimit == nil)
        #expect(try fixture("llama").positionRoom() == nil)
    }

    // MARK: Values that are not finite

    @Test func damagedTensorsAreNamed() throws {
        let model = try fixture("llama")
        #expect(try model.nonFiniteTensor() == nil)
        try model.requireFiniteWeights()
        let path = "model.layers.1.mlp.up_proj.weight"
        let parameter = try #require(model.parameters().first { $0.path == path }).parameter
        let damaged = parameter.tensor.detached().clone()
        damaged.narrowed(axis: 0, 0..<1).narrowed(axis: 1, 0..<2).fill(.nan)
        parameter.tensor = damaged
        #expect(try model.nonFiniteTensor() == NonFiniteTensor(path: path, count: 2))
        #expect(try model.nonFiniteTensor(except: [path]) == nil)
        for body in [
            { try model.requireFiniteWeights() },
            { _ = try Generator(model, .init(maxNewTokens: 2)).generate([[4]]) },
        ] as [() throws -> Void] {
            let error = try #require(throws: PEFTError.self) { try body() }
            #expect(error.problem.contains("'\(path)' contains 2 NaN or infinite values"), "\(error)")
        }
        damaged.fill(-.infinity)
        #expect(damaged.nonFiniteCount == damaged.count)
    }
}
