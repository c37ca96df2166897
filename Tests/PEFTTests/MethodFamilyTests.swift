import Foundation
import PEFTSupport
import TestSupport
import Testing

@testable import PEFT

@Suite struct MethodFamilyTests {
    private static let traits = MethodTraits.all(PEFTMethods.builtIn)

    private func traits(_ name: String) throws -> MethodTraits {
        try #require(Self.traits.first { $0.method.name == name })
    }

    /// `peft methods --markdown` prints the table.
    @Test func theTableOfTheDocumentationIsThatOfTheCode() throws {
        let page = try String(contentsOf: Checkout.root.appendingPathComponent("docs/methods.md"), encoding: .utf8)
        let table = MethodTraits.markdown(Self.traits)
        #expect(page.contains("\n\n" + table + "\n\n"), "docs/methods.md lacks the table:\n\(table)")
    }

    @Test func familiesFollowFromSites() throws {
        for (name, family) in [
            ("lora", MethodFamily.lora), ("dora", .lora), ("ia3", .weights), ("prompt", .prompts),
            ("prefix", .prompts),
            ("houlsby", .bottlenecks), ("full", .tensors), ("bitfit", .tensors), ("head", .tensors),
        ] {
            #expect(try traits(name).family == family, "\(name)")
        }
    }

    @Test func abilitiesAreFound() throws {
        let (lora, prompt, full) = (try traits("lora"), try traits("prompt"), try traits("full"))
        #expect(lora.isMergeable && lora.isForQuantized && lora.isForMixedBatches)
        #expect(!prompt.isMergeable && prompt.isForQuantized && prompt.isForMixedBatches)
        #expect(!full.isMergeable && !full.isForQuantized && !full.isForMixedBatches)
        // r (in + out) of q and v in 16 layers: 8 · (2048 + 2048 + 2048 + 512) · 16.
        #expect(lora.parameters == 851_968)
    }
}
