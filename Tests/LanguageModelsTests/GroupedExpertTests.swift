import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// Experts in groups of integers: files have the packed projections of each expert.
@Suite struct GroupedExpertTests {
    private static let text = """
        {"model_type": "mixtral", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 24, "num_local_experts": 3,
         "num_experts_per_tok": 2, "tie_word_embeddings": false}
        """

    /// A folder with a random model.
    private func withFolder(_ body: (URL, URL) throws -> Void) throws {
        try withTemporaryFolder { temporary in
            let source = temporary.appendingPathComponent("source")
            try FileManager.default.createDirectory(at: source, withIntermediateDirectories: true)
            try Data(Self.text.utf8).write(to: source.appendingPathComponent("config.json"))
            var random = SeededRandom(seed: 5)
            var tensors: [String: Tensor] = [:]
            for (path, parameter) in try ModelFolder(source).outline().parameters() {
                let tensor = Tensor.empty(parameter.tensor.shape)
                tensor.fillNormal(deviation: 0.3, from: &random)
                tensors[path] = tensor
            }
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: source.appendingPathComponent("model.safetensors"))
            try body(source, temporary)
        }
    }

    private let rows: [(input: [Int], target: [Int])] = [([1, 5, 9, 3, 8, 20], [4, 7, 2]), ([2, 2, 17], [11, 6])]

    private func loss(_ model: any LanguageModel) throws -> Double {
        try withTorchErrors { model.lossSum(model.batch(rows, device: .cpu), labelSmoothing: 0).item() }
    }

    private func sites(_ model: any LanguageModel) -> [ExpertLinear] {
        model.namedModules().compactMap { $0.module as? ExpertLinear }
    }

    @Test(arguments: [2, 3, 4, 8]) func quantizedExpertsAreWrittenAndReadPacked(bits: Int) throws {
        try withFolder { source, temporary in
            let model = try ModelFolder(source).load()
            let quantizer = GroupQuantizer(GroupQuantization(bits: bits, groupSize: 32))
            let outcomes = try quantizer.round(model) + quantizer.roundExperts(of: model)
            #expect(outcomes.filter { $0.path.contains("experts") }.count == 2)
            #expect(outcomes.allSatisfy { $0.weightError > 0 && $0.bytes < $0.bytesBefore / 2 })
            #expect(!outcomes.contains { $0.path.hasSuffix("mlp.gate") })
            let copy = temporary.appendingPathComponent("copy")
            try model.save(to: copy)
            let file = try SafetensorsFile(copy.appendingPathComponent("model.safetensors"))
            let prefix = "model.layers.0.block_sparse_moe.experts.1.w3."
            #expect(file.entries[prefix + "qweight"]?.shape == [64 * bits / 32, 32])
            #expect(file.entries[prefix + "g_idx"]?.shape == [64])
            #expect(file.entries["model.layers.0.block_sparse_moe.gate.weight"] != nil)
            // One expert's tensors are those of a projection in GPTQ's format.
            let settings = GroupQuantization(bits: bits, groupSize: 32)
            func part(_ name: String) throws -> Parameter { Parameter(try file.tensor(prefix + name)) }
            let own = GroupQuantizedWeight(
                outputs: 32, inputs: 64, settings: settings, integers: try part("qweight"),
                packedZeros: try part("qzeros"), scales: try part("scales"), order: try part("g_idx"))
            let again = try ModelFolder(copy).load()
            let gateUp = try #require(sites(again).first).weight
            #expect(gateUp is GroupedExperts)
            let up = gateUp.dense(as: .float32).narrowed(axis: 0, 1..<2).narrowed(axis: 1, 32..<64).reshaped(32, 64)
            #expect(up.isIdentical(to: own.dense(as: .float32)))
            #expect(try loss(again) == loss(model))
            try again.upcastWeights(groups: true)
            #expect(try abs(loss(again) - loss(model)) < 1e-5 * loss(model))
        }
    }

    /// Tiles of one expert, forward and backward, equal the dequantized matrices.
    @Test(arguments: [false, true]) func gradientsEqualThoseOfDenseMatrices(hasOrder: Bool) throws {
        var random = SeededRandom(seed: 3)
        func normal(_ shape: [Int]) -> Tensor {
            let tensor = Tensor.empty(shape)
            tensor.fillNormal(deviation: 0.5, from: &random)
            return tensor
        }
        let settings = GroupQuantization(bits: 4, groupSize: 32)
        var weights = try (0..<3).map { _ in try GroupQuantizedWeight(rounding: normal([40, 64]), to: settings) }
        if hasOrder {
            weights = weights.map {
                GroupQuantizedWeight(
                    outputs: 40, inputs: 64, settings: settings, integers: $0.integers, packedZeros: $0.packedZeros,
                    scales: $0.scales, order: Parameter(Tensor((0..<64).map { Int32($0 % 2) })))
            }
        }
        let experts = GroupedExperts(stacking: weights)
        let dense = experts.dense(as: .float32)
        let routing = ExpertRouting(Tensor((0..<24).map { $0 * 7 % 3 }).reshaped(24, 1), experts: 3)
        let (a, b) = (normal([3, 2, 64]), normal([3, 40, 2]))
        func run(_ matrices: ExpertMatrices) throws -> [Tensor] {
            let x = normal([24, 64])
            x.fill(0)
            x.add(Tensor((0..<24 * 64).map { Float($0 % 13) / 13 - 0.4 }, shape: [24, 64]), alpha: 1)
            for tensor in [x, a, b] {
                tensor.requiresGrad = true
                tensor.grad = nil
            }
            let y = Functions.expertLinear(
                x, matrices, update: (a, b, 0.5), routing: routing, isOrdered: false)
            y.squared().sum().backward()
            return [y.detached(), try #require(x.grad), try #require(a.grad), try #require(b.grad)].map { $0.clone() }
        }
        let packed = try withTorchErrors { try run(experts.matrices) }
        let plain = try withTorchErrors {
            try run(ExpertMatrices(.dense(dense, isTransposed: false), experts: 3))
        }
        for (mine, other) in zip(packed, plain) { #expect(relativeDifference(mine, other) < 1e-5) }
    }

    @Test func awqExpertsAreRepacked() throws {
        try withFolder { source, temporary in
            let copy = temporary.appendingPathComponent("awq")
            try FileManager.default.createDirectory(at: copy, withIntermediateDirectories: true)
            var fields = try #require(try JSON.parse(Data(Self.text.utf8), name: "text").object)
            fields["quantization_config"] = [
                "quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": "gemm",
            ]
            try AtomicFile.write(JSON.object(fields).text(), to: copy.appendingPathComponent("config.json"))
            let model = try ModelFolder(source).load()
            var tensors = Dictionary(
                uniqueKeysWithValues: model.parameters().filter { !$0.path.contains("experts") }.map {
                    ($0.path, $0.parameter.tensor)
                })
            // AWQ's order of the eight outputs in a word.
            let order = [0, 2, 4, 6, 1, 3, 5, 7]
            func words(_ values: Tensor) -> Tensor {
                let columns = (0..<values.dim(1)).map { $0 / 8 * 8 + order[$0 % 8] }
                return values.selecting(axis: 1, Tensor(columns)).packed(bits: 4, axis: 1)
            }
            let settings = GroupQuantization(bits: 4, groupSize: 32, zeroOffset: 0)
            for (path, site) in model.namedModules().compactMap({ item in
                (item.module as? ExpertLinear).map { (item.path, $0) }
            }) {
                let dense = site.weight.dense(as: .float32)
                let parts = path.hasSuffix("down_proj") ? ["w2"] : ["w1", "w3"]
                for expert in 0..<3 {
                    for (index, part) in parts.enumerated() {
                        let size = dense.dim(1) / parts.count
                        let own = dense.narrowed(axis: 0, expert..<expert + 1).narrowed(
                            axis: 1, index * size..<(index + 1) * size
                        ).reshaped(size, dense.dim(2)).contiguous()
                        let rounded = own.roundedInGroups(bits: 4, groupSize: 32, isSymmetric: false)
                        let name = "model.layers.0.block_sparse_moe.experts.\(expert).\(part)."
                        tensors[name + "qweight"] = words(rounded.integers)
                        tensors[name + "qzeros"] = words(rounded.zeros.to(.int32))
                        tensors[name + "scales"] = rounded.scales.to(.float16)
                    }
                }
                site.weight = try GroupedExperts(rounding: dense, to: settings)
            }
            try SafetensorsFile.write(
                tensors, metadata: ["format": "pt"], to: copy.appendingPathComponent("model.safetensors"))
            let read = try ModelFolder(copy).load()
            #expect(sites(read).allSatisfy { $0.weight is GroupedExperts })
            #expect(try loss(read) == loss(model))
        }
    }

    @Test func differentOrdersOfOneMatrixAreAnError() throws {
        try withFolder { source, temporary in
            let model = try ModelFolder(source).load()
            let quantizer = GroupQuantizer(GroupQuantization(bits: 4, groupSize: 32))
            _ = try quantizer.roundExperts(of: model)
            let copy = temporary.appendingPathComponent("copy")
            try model.save(to: copy)
            let weights = copy.appendingPathComponent("model.safetensors")
            var tensors = try SafetensorsFile(weights).tensors().mapValues { $0.clone() }
            tensors["model.layers.0.block_sparse_moe.experts.2.w1.g_idx"] = Tensor((0..<64).map { Int32($0 % 2) })
            try SafetensorsFile.write(tensors, metadata: ["format": "pt"], to: weights)
            let error = try #require(throws: PEFTError.self) { try ModelFolder(copy).load() }
            #expect(error.problem.contains("experts.2.w3.g_idx' differs from"))
        }
    }
}
