import LanguageModels
import TestSupport
import Testing
import Torch

@testable import PEFT

/// The method and the LoRA variant that CONTRIBUTING adds.
@Suite struct WalkThroughTests {
    @Test func oneLineRegistersAMethod() throws {
        PEFTMethods.register(OutputGate.self)
        #expect(PEFTMethods.all.contains { $0 == OutputGate.self })
        #expect(try PEFTMethods.named("gate") == OutputGate.self)
        PEFTMethods.register(OutputGate.self)
        #expect(PEFTMethods.all.filter { $0 == OutputGate.self }.count == 1)
    }

    /// A variant in the list of variants changes what its option turns on: here the scale of 12 / log₂(1 + 7).
    @Test func aVariantOfTheListScalesTheBranch() throws {
        var configuration = LoRA.Configuration(rank: 7, alpha: 12, targets: ["q_proj"])
        configuration.variants = LoRAVariants(LoRAVariants.all + [LogLoRA.self])
        let field = try #require(LogLoRA.scalingFields.first)
        for (value, scale, label) in [("false", 12.0 / 7, "LoRA"), ("true", 4, "logLoRA")] {
            try field.write(&configuration.variants, field.parse(value))
            #expect(field.read(configuration.variants) == (value == "true" ? true : .null))
            let choice = MethodChoice(LoRA.self, configuration)
            #expect(choice.label.hasPrefix(label + " "))
            let model = try ModelFolder(Checkout.model("llama")).load()
            let adapter = try Adapter(choice, on: model, seed: 1)
            let branches = adapter.attached.compactMap { $0.adapter as? LoRAAdapter }
            #expect(!branches.isEmpty && branches.allSatisfy { abs($0.scale - scale) < 1e-12 })
            let branch = try #require(branches.first)
            branch.b = .ones(branch.b.shape)
            // Merging into zeros gives s B A, whose rows are s times the sum of A's rows.
            let merged = try branch.merged(into: .zeros([branch.b.dim(0), branch.a.dim(1)])).array(Double.self)
            let sums = branch.a.sum(axes: [0]).array(Double.self)
            #expect(zip(merged, sums).allSatisfy { abs($0 - scale * $1) < 1e-5 })
        }
    }
}
