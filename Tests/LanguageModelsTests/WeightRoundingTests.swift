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

    /// GPT-2's matrices lie the other way in the file; its square ones don't show that by their shape.
    @Test(arguments: ["nf4", "int8"]) func errorsOfSquareMatrices(name: String) throws {
        let folder = try ModelFolder(Checkout.model("gpt2"))
        let outcomes = try folder.outcomes(of: folder.with(weights: WeightStorage(name)).load())
        #expect(outcomes.contains { $0.path.hasSuffix("attn.c_proj") })
        for outcome in outcomes { #expect(outcome.error < 0.15, "\(outcome.path)") }
    }
}
