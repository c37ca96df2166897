import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Folders of sentence-transformers: `modules.json` with its pooling, dense layers and normalization.
@Suite struct SentenceFolderTests {
    private static let rows = [[5, 9, 30, 2], [7, 11], [40, 3, 8, 21, 17, 1, 6]]
    private static let source = Checkout.model("heads").appendingPathComponent("gemma3-embedding")

    /// Calls `body` with a copy of EmbeddingGemma's fixture that has these modules after the transformer.
    private func withFolder<Result>(
        _ modules: [(type: String, path: String)], pooling: JSON = ["pooling_mode_mean_tokens": true],
        _ body: (URL) throws -> Result
    ) throws -> Result {
        try withTemporaryCopy(of: Self.source) { folder in
            let all = [(type: "Transformer", path: "")] + modules
            let list = all.enumerated().map { index, module -> JSON in
                [
                    "idx": .integer(index), "name": .string("\(index)"), "path": .string(module.path),
                    "type": .string("sentence_transformers.models.\(module.type)"),
                ]
            }
            try AtomicFile.write(JSON.array(list).text(), to: folder.appendingPathComponent("modules.json"))
            for (type, path) in modules where type == "Pooling" {
                try write(pooling, "config.json", into: folder.appendingPathComponent(path))
            }
            return try body(folder)
        }
    }

    private func write(_ json: JSON, _ name: String, into folder: URL) throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try AtomicFile.write(json.text(), to: folder.appendingPathComponent(name))
    }

    /// Writes a dense layer with a weight of sines, and returns it as rows.
    private func dense(_ outputs: Int, _ inputs: Int, _ function: String, bias: Bool, into folder: URL) throws
        -> (weight: [[Double]], bias: [Double])
    {
        let weight = (0..<outputs).map { i in (0..<inputs).map { sin(Double(3 * i + 7 * $0 + outputs)) * 0.3 } }
        let shift = (0..<outputs).map { bias ? cos(Double($0)) : 0 }
        try write(
            [
                "in_features": .integer(inputs), "out_features": .integer(outputs), "bias": .bool(bias),
                "activation_function": .string(function),
            ], "config.json", into: folder)
        var tensors = ["linear.weight": Tensor(weight.flatMap { $0.map(Float.init) }, shape: [outputs, inputs])]
        if bias { tensors["linear.bias"] = Tensor(shift.map(Float.init)) }
        try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
        return (weight, shift)
    }

    private func vectors(_ folder: URL) throws -> [[Double]] {
        let model = try ModelFolder(folder).load()
        let batch = model.batch(Self.rows.map { TrainingRow(input: $0) }, device: .cpu)
        let all = try withTorchErrors { withoutGradients { model.logits(batch) } }
        let flat = all.array(Double.self)
        return (0..<all.dim(0)).map { Array(flat[($0 * all.dim(1))..<(($0 + 1) * all.dim(1))]) }
    }

    private func unit(_ x: [Double]) -> [Double] {
        let length = x.reduce(0) { $0 + $1 * $1 }.squareRoot()
        return x.map { $0 / length }
    }

    private func apply(_ x: [Double], _ layer: (weight: [[Double]], bias: [Double])) -> [Double] {
        zip(layer.weight, layer.bias).map { row, bias in zip(row, x).reduce(bias) { $0 + $1.0 * $1.1 } }
    }

    /// normalize(W₂ tanh(W₁ mean + b₁)), also of the folder that the model is saved to.
    @Test func denseLayersFollowPooling() throws {
        let means = try withFolder([("Pooling", "1_Pooling")]) { try vectors($0) }
        let modules = [
            ("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense"), ("Normalize", "4_Normalize"),
        ]
        try withFolder(modules) { folder in
            let first = try dense(
                24, 16, "torch.nn.modules.activation.Tanh", bias: true, into: folder.appendingPathComponent("2_Dense")
            )
            let second = try dense(
                12, 24, "torch.nn.modules.linear.Identity", bias: false,
                into: folder.appendingPathComponent("3_Dense"))
            let expected = means.map { unit(apply(apply($0, first).map(tanh), second)) }
            let own = try vectors(folder)
            #expect(own.first?.count == 12)
            #expect(relativeDifference(own.flatMap { $0 }, expected.flatMap { $0 }) < 1e-5)
            let copy = folder.appendingPathComponent("copy")
            try ModelFolder(folder).load().save(to: copy)
            #expect(relativeDifference(try vectors(copy).flatMap { $0 }, own.flatMap { $0 }) < 1e-6)
        }
    }

    @Test(arguments: [
        ("pooling_mode_weightedmean_tokens", "weightedmean", Pooling.Mode.weightedMean),
        ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", .meanSqrtLength),
    ]) func poolingsWeighTokens(older: String, newer: String, mode: Pooling.Mode) throws {
        let states = (0..<13).map { i in (0..<3).map { sin(Double(5 * i + $0)) } }
        let tensor = Tensor(states.flatMap { $0.map(Float.init) }, shape: [13, 3])
        let offsets = [0, 4, 6, 13]
        let expected = (0..<3).flatMap { row -> [Double] in
            let tokens = Array(states[offsets[row]..<offsets[row + 1]])
            let weights = tokens.indices.map { mode == .weightedMean ? Double($0 + 1) : 1 }
            let total = mode == .weightedMean ? weights.reduce(0, +) : Double(tokens.count).squareRoot()
            return (0..<3).map { place in zip(tokens, weights).reduce(0) { $0 + $1.0[place] * $1.1 } / total }
        }
        let own = Pooling(mode, normalizes: false)(tensor, offsets: offsets).array(Double.self)
        #expect(relativeDifference(own, expected) < 1e-6)
        for json in [.object([older: true, "pooling_mode_cls_token": false]), ["pooling_mode": .string(newer)]]
            as [JSON]
        {
            let pooling = try withFolder([("Pooling", "1_Pooling")], pooling: json) { try ModelFolder($0).pooling }
            #expect(pooling == Pooling(mode, normalizes: false))
        }
    }

    @Test func otherFoldersAreRefusedByName() throws {
        func refused(_ word: String, _ modules: [(String, String)], _ prepare: (URL) throws -> Void = { _ in }) throws
        {
            let error = try #require(throws: PEFTError.self) {
                try withFolder(modules.map { (type: $0.0, path: $0.1) }) { folder in
                    try prepare(folder)
                    _ = try ModelFolder(folder).load()
                }
            }
            #expect(error.problem.contains(word), "\(error.problem)")
        }
        try refused("'sentence_transformers.models.CNN'", [("Pooling", "1_Pooling"), ("CNN", "2_CNN")])
        try refused("in an order", [("Pooling", "1_Pooling"), ("Normalize", "2"), ("Dense", "3_Dense")])
        try refused("outside its folder", [("Pooling", "../1_Pooling")])
        try refused("'torch.nn.modules.activation.ELU'", [("Pooling", "1_Pooling"), ("Dense", "2_Dense")]) {
            _ = try dense(
                4, 16, "torch.nn.modules.activation.ELU", bias: false, into: $0.appendingPathComponent("2_Dense"))
        }
        try refused("5 inputs", [("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Dense", "3_Dense")]) {
            let identity = "torch.nn.modules.linear.Identity"
            _ = try dense(4, 16, identity, bias: false, into: $0.appendingPathComponent("2_Dense"))
            _ = try dense(4, 5, identity, bias: false, into: $0.appendingPathComponent("3_Dense"))
        }
    }
}
