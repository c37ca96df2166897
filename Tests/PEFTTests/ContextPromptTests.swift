import Foundation
import LanguageModels
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchTestSupport

@testable import PEFT

/// Context-aware prompt tuning beside what `HuggingFaceTests` compares.
@Suite struct ContextPromptTests {
    /// Hugging Face PEFT's loss includes the labels of a prompt.
    @Test func promptsWithLabelsAreReadButNotTrained() throws {
        let fixture = try HuggingFaceTests.Fixture("cpt")
        try withTemporaryFolder { folder in
            let copy = folder.appendingPathComponent("copy")
            try FileManager.default.copyItem(at: fixture.folder, to: copy)
            try rewriteConfiguration(copy) { $0["cpt_tokens_type_mask"] = [1, 2, 3, 4, 5, 8] }
            let adapter = try AdapterFolder(copy).attach(to: fixture.model(), isTrainable: true)
            #expect(adapter.parameters.isEmpty)
            let logits = try adapter.model.scores(fixture.rows)
            #expect(relativeDifference(logits, try fixture.tensors.tensor("logits")) < 1e-4)
        }
    }

    @Test func promptsBeginAsTheirTokens() throws {
        var choice = MethodChoice(CPT.self)
        try choice.set("cpt-tokens", to: "5,17,80")
        let model = try Models.load("llama")
        let adapter = try Adapter(choice, on: model)
        // As if the tokens preceded the input.
        let row = (input: [9, 33], target: [7, 8])
        let prompted = try adapter.model.scores([row])
        try adapter.deactivate()
        #expect(relativeDifference(prompted, try model.scores([([5, 17, 80] + row.input, row.target)])) < 1e-5)
    }

    /// A step moves a token by no more than its bound, whatever its gradient.
    @Test func changesAreBounded() throws {
        var choice = MethodChoice(CPT.self)
        for (name, text) in [
            ("cpt-tokens", "5,17,80"), ("cpt-types", "1,0,2"), ("cpt-epsilon", "3"), ("cpt-format-epsilon", "2"),
        ] {
            try choice.set(name, to: text)
        }
        let model = try Models.load("llama")
        let adapter = try Adapter(choice, on: model)
        let before = try #require(adapter.storedTensors()["prompt_embeddings"]).clone()
        try adapter.train(steps: 3, rate: 10)
        let after = try #require(adapter.storedTensors()["prompt_embeddings"])
        let lengths: [Double] = (after - before).squared().sum(axes: [1]).sqrt().array()
        let root = (Double(before.dim(1)) / 2048).squareRoot()
        #expect(abs(lengths[0] - 2 * root) < 1e-4 && lengths[1] < 1e-6 && abs(lengths[2] - 3 * root) < 1e-4)
    }

    @Test(arguments: [
        (["cpt-types": "1,2"], "has 2 entries for 1 tokens"), (["cpt-tokens": "96"], "outside the vocabulary"),
        (["cpt-tokens": "1", "cpt-mask": "1,1"], "'cpt_mask' has 2 entries"),
    ])
    func whatDoesNotFitIsRefused(options: [String: String], reason: String) throws {
        var choice = MethodChoice(CPT.self)
        for (name, text) in options { try choice.set(name, to: text) }
        let model = try Models.load("llama")
        let error = try failure { _ = try Adapter(choice, on: model) }
        #expect(error.problem.contains(reason), "\(error)")
        #expect(model.adapterCount == 0)
    }
}
