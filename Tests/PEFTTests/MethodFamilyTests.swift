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

    /// `Scripts/update_docs.py` writes the facts between the marks.
    @Test func everyMethodHasAPageWithItsFacts() throws {
        let folder = Checkout.root.appendingPathComponent("docs/methods")
        for traits in Self.traits {
            let page = try String(
                contentsOf: folder.appendingPathComponent("\(traits.method.name).md"), encoding: .utf8)
            let parts = page.components(separatedBy: "\n<!-- facts -->\n\n")
            #expect(
                parts.count == 2 && parts[1] == MethodFacts(traits).markdown + "\n",
                "docs/methods/\(traits.method.name).md is out of date: run Scripts/update_docs.py")
        }
        let pages = try FileManager.default.contentsOfDirectory(atPath: folder.path).filter { $0.hasSuffix(".md") }
        #expect(Set(pages) == Set(Self.traits.map { $0.method.name + ".md" }))
    }

    /// The JSON form has what the cost formulas of the pages are checked with.
    @Test func factsHaveTheShapesOfOneSite() throws {
        let facts = MethodFacts(LoRA.self).json
        #expect(facts["example"]?["path"] == "model.layers.0.self_attn.v_proj")
        let shapes = facts["example"]?["tensors"]?.array?.map { $0["shape"] }
        #expect(shapes == [[8, 2048], [512, 8]])
        #expect(facts["options"]?.array?.first?["key"] == "r")
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
