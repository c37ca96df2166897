import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN

@testable import LanguageModels

@Suite struct WeightRoundingTests {
    @Test(arguments: [
        ("nf4", "nf4", true), ("NF4-double", "nf4-double", true), ("int8", "int8", true), ("bf16", "bf16", false),
        ("int4", "int4-g128", true), ("int8-g64", "int8-g64", true), ("int3-g32-gptq", "int3-g32-gptq", true),
        ("int2-gptq", "int2-g128-gptq", true), ("fp32", "fp32", false),
    ])
    func names(given: String, canonical: String, isQuantized: Bool) throws {
        let rounding = try WeightRounding(given)
        #expect(rounding.name == canonical && rounding.isQuantized == isQuantized)
        #expect(try WeightRounding(rounding.name) == rounding)
        #expect(rounding.needsSamples == canonical.hasSuffix("gptq"))
    }

    @Test(arguments: [
        "int5", "int4-g33", "int4-32", "int4-g0", "int4-gptq-g32", "nf5", "int4-g32-awq", "", "int4-g-32",
    ])
    func otherNamesAreRefused(name: String) {
        #expect(throws: PEFTError.self) { _ = try WeightRounding(name) }
    }

    /// What a file would take, against the files.
    @Test(arguments: ["nf4", "int8", "int4-g32"]) func bytesAreThoseOfTheFile(name: String) throws {
        let folder = try ModelFolder(Checkout.tinyT5)
        let model = try folder.load()
        try WeightRounding(name).apply(to: model) {}
        let type = try folder.storedType() ?? .float32
        let file = try withTemporaryFolder { temporary in
            let target = temporary.appendingPathComponent("rounded")
            try model.save(to: target, dtype: type)
            return try ModelFolder(target).weightBytes
        }
        let counted = model.storedBytes(as: type)
        // The rest is the file's header.
        #expect(counted <= file && file < counted + 64_000, "\(counted) of \(file)")
    }

    /// Saves a random model of a fixture's family, whose matrices fill whole words and groups.
    private static func save(_ name: String, to folder: URL) throws {
        let file = Checkout.model(name).appendingPathComponent("config.json")
        let sizes: [String: JSON] = ["n_embd": 32, "hidden_size": 32, "moe_intermediate_size": 32, "head_dim": 16]
        let fields = try JSON.read(file).object ?? [:]
        let model = try ModelRegistry.outline(
            .object(fields.merging(sizes.filter { fields[$0.key] != nil }) { $1 }), file: file.path)
        var random = SeededRandom(seed: 3)
        for (_, parameter) in model.parameters() {
            let value = Tensor.zeros(parameter.tensor.shape)
            value.fillNormal(deviation: 0.3, from: &random)
            parameter.tensor = value
        }
        try model.save(to: folder)
    }

    /// Loaded as group-wise integers, a model is the same as one that is quantized afterwards.
    @Test(arguments: ["gpt2", "decoders/qwen3_moe"]) func groupsAreRoundedWhileLoading(name: String) throws {
        try withTemporaryFolder { temporary in
            let url = temporary.appendingPathComponent("model")
            try Self.save(name, to: url)
            let folder = try ModelFolder(url)
            let storage = try WeightStorage("int4-g32")
            let loaded = try folder.with(weights: storage).load()
            let quantized = try folder.load()
            let quantizer = GroupQuantizer(GroupQuantization(bits: 4, groupSize: 32))
            #expect(try quantizer.round(quantized).count > 2)
            #expect(try quantizer.roundExperts(of: quantized).isEmpty == (name == "gpt2"))
            try Self.compare(loaded, quantized)
            try Self.compareOutline(folder.with(weights: storage).outline(), loaded)
            let error = try #require(throws: PEFTError.self) { try folder.with(embeddings: storage).load() }
            #expect(error.problem.contains("embeddings can't be stored as 'int4-g32'"))
        }
    }

    private static func compare(_ loaded: any LanguageModel, _ quantized: any LanguageModel) throws {
        let (a, b) = (loaded.parameters(), quantized.parameters())
        #expect(a.map(\.path) == b.map(\.path))
        for (mine, other) in zip(a, b) {
            #expect(mine.parameter.tensor.isIdentical(to: other.parameter.tensor), "\(mine.path)")
        }
    }

    private static func compareOutline(_ outline: any LanguageModel, _ loaded: any LanguageModel) throws {
        let (a, b) = (outline.parameters(), loaded.parameters())
        #expect(a.map(\.path) == b.map(\.path))
        #expect(a.map(\.parameter.tensor.shape) == b.map(\.parameter.tensor.shape))
    }

    /// GPT-2's matrices lie the other way in the file; its square ones don't show that by their shape.
    @Test(arguments: ["nf4", "int8"]) func errorsOfSquareMatrices(name: String) throws {
        let folder = try ModelFolder(Checkout.model("gpt2"))
        let outcomes = try folder.outcomes(of: folder.with(weights: WeightStorage(name)).load())
        #expect(outcomes.contains { $0.path.hasSuffix("attn.c_proj") })
        for outcome in outcomes { #expect(outcome.error < 0.15, "\(outcome.path)") }
    }
}
