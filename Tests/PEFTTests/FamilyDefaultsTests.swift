import Foundation
import LanguageModels
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Where no targets are given, a method goes where Hugging Face PEFT's does (`make_decoder_adapter_fixtures.py` wrote
/// its tables).
@Suite struct FamilyDefaultsTests {
    /// A small model of each type.
    static let models = [
        "t5": ["t5-v1.0", "t5-v1.1"], "mt5": ["decoders/mt5"], "llama": ["llama", "decoders/llama-biases"],
        "qwen2": ["qwen2", "decoders/qwen2"], "qwen3": ["qwen3"], "gemma": ["decoders/gemma"],
        "gemma2": ["decoders/gemma2"], "gemma3_text": ["decoders/gemma3"], "phi3": ["decoders/phi3"],
        "gpt2": ["gpt2"],
    ]

    static let cases = models.flatMap { family, bases in bases.map { (family: family, base: $0) } }

    private static func table() throws -> JSON {
        let file = try #require(Bundle.module.resourceURL).appendingPathComponent("Fixtures/defaults.json")
        return try JSON.read(file)
    }

    private func outline(_ base: String) throws -> ModelOutline {
        ModelOutline(try ModelFolder(Models.folder.appendingPathComponent(base)).outline())
    }

    @Test(arguments: cases) func targetsAreHuggingFaces(family: String, base: String) throws {
        let table = try Self.table()
        let outline = try outline(base)
        #expect(outline.family == family)
        for method in ["lora", "adalora", "ia3", "vera", "loha", "lokr", "oft", "boft", "layernorm"] {
            guard let targets = table[method]?[family]?.array?.compactMap(\.string) else { continue }
            var choice = MethodChoice(try PEFTMethods.named(method))
            let planned = Set(try choice.plan(for: outline).map(\.path))
            // Some of a family's targets are not in each of its models; Hugging Face passes them over.
            let paths = method == "layernorm" ? outline.parameters.map(\.owner) : outline.linears.map(\.path)
            let there = targets.filter { target in paths.contains { TargetSelection.names(target, $0) } }
            #expect(!there.isEmpty, "\(method)")
            try choice.set("targets", to: there.joined(separator: ","))
            #expect(planned == Set(try choice.plan(for: outline).map(\.path)), "\(method)")
        }
    }

    @Test(arguments: cases) func rescaledInputsAreHuggingFaces(family: String, base: String) throws {
        guard let names = try Self.table()["ia3_feedforward"]?[family]?.array?.compactMap(\.string) else { return }
        let resolved = IA3.resolved(IA3.Configuration(), for: try outline(base))
        #expect(resolved.feedForward.sorted() == names)
    }

    /// With fewer heads of keys than of queries, a prefix has the keys'.
    @Test(arguments: [
        ("llama", 12, 2), ("decoders/gemma2", 16, 2), ("decoders/phi3", 8, 1), ("decoders/qwen2", 8, 2),
    ])
    func prefixesHaveTheSizeOfKeys(base: String, size: Int, heads: Int) throws {
        let resolved = PrefixTuning.resolved(PrefixTuning.Configuration(), for: try outline(base))
        #expect(resolved.tokens.size == size && resolved.tokens.heads == heads && resolved.tokens.layers == 3)
        #expect(resolved.hiddenSize == size)
    }

    /// What a soft prompt begins as is what the layers see: Gemma multiplies its embeddings.
    @Test func promptsBeginAsScaledEmbeddings() throws {
        let model = try Models.load("decoders/gemma2")
        var choice = MethodChoice(PromptTuning.self)
        try choice.set("tokens", to: "3")
        try choice.set("init", to: "vocabulary")
        let adapter = try Adapter(choice, on: model, seed: 3)
        let prompt = try #require(adapter.storedTensors()["prompt_embeddings"])
        let table = try #require(model.parameters().first { $0.path == "model.embed_tokens.weight" }).parameter.tensor
        for row in 0..<3 {
            let distances: [Float] = (table * 4 - prompt[row].unsqueezed(0)).squared().sum(axes: [1]).array()
            #expect(try #require(distances.min()) < 1e-10)
        }
    }

    @Test func slicesThatAProjectionDoesNotHaveAreRefused() throws {
        var configuration = LoRA.Configuration(rank: 2, alpha: 4, targets: ["gate_up_proj"])
        configuration.extras.slices = ProjectionSlices([true, false, true])
        let error = try failure {
            _ = try MethodChoice(LoRA.self, configuration).plan(for: try outline("decoders/phi3"))
        }
        #expect(error.problem.contains("consists of gate, up, but 3 slices are given"))
    }
}
