import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// A folder that `make_decoder_fixtures.py` or a script beside it wrote: a model, or another model's weights under a configuration of its own.
struct DecoderFixture: Sendable, CustomTestStringConvertible {
    let name: String
    var testDescription: String { name }

    static let folder = Bundle.module.resourceURL?.appendingPathComponent("Fixtures/decoders")
    static let all: [DecoderFixture] = {
        let names = folder.flatMap { try? FileManager.default.contentsOfDirectory(atPath: $0.path) } ?? []
        return names.sorted().map { DecoderFixture(name: $0) }
    }()

    func file(_ file: String) throws -> URL {
        try #require(Self.folder).appendingPathComponent(name).appendingPathComponent(file)
    }
    func expected() throws -> JSON { try JSON.read(file("expected.json")) }
    func tensors() throws -> SafetensorsFile { try SafetensorsFile(file("expected.safetensors")) }

    /// The model, from a folder as a hub has it.
    func load() throws -> any LanguageModel {
        guard let weights = try expected()["weights"]?.string else {
            return try ModelFolder(file("config.json").deletingLastPathComponent()).load()
        }
        return try withModelFolder(
            JSON.read(file("config.json")), weights: DecoderFixture(name: weights).file("model.safetensors")
        ) { try ModelFolder($0).load() }
    }
}

/// Calls `body` with a folder of a configuration and weights, which is removed afterwards.
func withModelFolder<Result>(_ configuration: JSON, weights: URL?, _ body: (URL) throws -> Result) throws -> Result {
    try withTemporaryFolder { folder in
        try AtomicFile.write(configuration.text(), to: folder.appendingPathComponent("config.json"))
        if let weights {
            try FileManager.default.copyItem(at: weights, to: folder.appendingPathComponent("model.safetensors"))
        }
        return try body(folder)
    }
}

/// Decoders and encoder-decoders of all families and variants compute here what transformers computes.
@Suite struct DecoderParityTests {
    @Test func allFamiliesAreThere() {
        #expect(DecoderFixture.all.count >= 30)
    }

    @Test(arguments: DecoderFixture.all) func logitsLossAndGradientsEqualTransformers(fixture: DecoderFixture) throws
    {
        let (model, expected, tensors) = (try fixture.load(), try fixture.expected(), try fixture.tensors())
        let batch = model.batch(expected.rows, device: .cpu)
        let logits = try withTorchErrors { withoutGradients { model.logits(batch) } }
        #expect(relativeDifference(logits, try tensors.tensor("logits")) < 1e-4)

        for (_, parameter) in model.parameters() { parameter.tensor.requiresGrad = true }
        let loss = try withTorchErrors {
            let loss = model.lossSum(batch, labelSmoothing: 0) / Double(batch.targetCount)
            loss.backward()
            return loss.item()
        }
        #expect(abs(loss - (expected["loss"]?.double ?? .nan)) < 1e-5 * loss)
        let keys = tensors.entries.keys.filter { $0.hasPrefix("gradient.") }
        #expect(!keys.isEmpty)
        // A router's correction is a buffer.
        let paths = model.parameters().map { "gradient.\($0.path)" }.filter { !$0.hasSuffix("correction_bias") }
        #expect(Set(keys).isSubset(of: paths))
        let buffers = model.buffers.map { "gradient.\($0)" }
        if expected["weights"] == nil { #expect(Set(keys) == Set(paths).subtracting(buffers)) }
        for (path, parameter) in model.parameters() where keys.contains("gradient.\(path)") {
            let gradient = try #require(parameter.tensor.grad, "no gradient for \(path)").array(Double.self)
            let other = try tensors.tensor("gradient.\(path)").array(Double.self)
            // A key's bias doesn't change any softmax: its gradient is zero but for rounding.
            let scale = other.map(abs).max() ?? 0
            #expect(scale < 1e-6 || relativeDifference(gradient, other) < 1e-3, "\(path)")
        }
    }

    @Test(arguments: DecoderFixture.all) func twentyStepsEqualTransformers(fixture: DecoderFixture) throws {
        let (model, expected) = (try fixture.load(), try fixture.expected())
        let parameters = model.parameters().map(\.parameter)
        for parameter in parameters { parameter.tensor = parameter.tensor.detached().clone() }
        for parameter in parameters { parameter.tensor.requiresGrad = true }
        let optimizer = AdamW(parameters, weightDecay: 0.01)
        let rows = expected.rows
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
        #expect(relativeDifference(losses, (expected["losses"]?.array ?? []).compactMap(\.double)) < 1e-3)
    }

    @Test(arguments: DecoderFixture.all) func generatedIdsEqualTransformers(fixture: DecoderFixture) throws {
        let (model, expected) = (try fixture.load(), try fixture.expected())
        let prompts = expected.rows.map(\.input)
        func ids(_ key: String) -> [[Int]] {
            (expected[key]?.array ?? []).map(\.integers)
        }
        for (key, beams) in [("greedy", 1), ("beams", 3)] {
            let generator = try Generator(model, GenerateParameters(maxNewTokens: 12, beams: beams))
            let made = try prompts.map { try generator.generate([$0])[0] }
            #expect(made == ids(key), "\(key)")
        }
        guard expected["together"] != nil else { return }
        let together = try Generator(model, GenerateParameters(maxNewTokens: 12)).generate(prompts)
        #expect(together == ids("together"))
    }

    /// Where the angles depend on the longest row, the fixture's rows lie on both sides of the switch, and one prompt
    /// begins before it and ends after it.
    @Test func longropeSwitchesWithinTheFixture() throws {
        let fixture = DecoderFixture(name: "phi3-longrope")
        let model = try #require(try fixture.load() as? Phi3)
        #expect(model.rereadLength == 16)
        let expected = try fixture.expected()
        #expect(Set(expected.rows.map { $0.input.count > 16 }) == [true, false])
        #expect(expected["together"] != expected["greedy"])
    }

    @Test func dynamicPositionsEndWhereTheyWouldBeginToDepend() throws {
        let fixture = DecoderFixture(name: "llama-dynamic")
        let model = try fixture.load()
        let short = model.batch([(Array(repeating: 5, count: 127), [1])], device: .cpu)
        _ = try withTorchErrors { withoutGradients { model.logits(short) } }
        let long = model.batch([(Array(repeating: 5, count: 128), [7, 1])], device: .cpu)
        let error = try #require(throws: PEFTError.self) {
            try withTorchErrors { withoutGradients { model.logits(long) } }
        }
        #expect(error.problem.contains("longer than the 128 positions") && error.problem.contains("'dynamic'"))
    }
}
