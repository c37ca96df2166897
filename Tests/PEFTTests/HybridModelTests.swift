import LanguageModels
import PEFTSupport
import Testing
import Torch
import TorchNN

@testable import PEFT

/// Methods over hybrid models, beyond what `HuggingFaceTests` compares.
@Suite struct HybridModelTests {
    @Test func defaultTargetsAreInAllLayers() throws {
        let model = try Models.load("decoders/qwen3_5_text")
        let paths = try MethodChoice(LoRA.Implementation.self, LoRA.Configuration())
            .plan(for: ModelOutline(model)).map(\.path)
        let layers = "model.layers."
        #expect(
            Set(paths) == [
                layers + "0.linear_attn.in_proj_qkv", layers + "1.linear_attn.in_proj_qkv",
                layers + "2.self_attn.q_proj", layers + "2.self_attn.v_proj",
            ])
    }

    /// Layers with states have neither keys nor values that a prefix could be.
    @Test(arguments: ["qwen3_5_text", "qwen3_next", "lfm2", "granitemoehybrid", "falcon_h1", "nemotron_h"])
    func prefixesAreRejected(name: String) throws {
        let outline = ModelOutline(try Models.load("decoders/\(name)"))
        let error = try #require(throws: PEFTError.self) {
            try MethodChoice(PrefixTuning.Implementation.self, PrefixTuning.Configuration()).plan(for: outline)
        }
        #expect(error.problem.contains("no attention layer that supports prefixes"), "\(error.problem)")
    }

    /// transformers leaves the factor of Falcon-H1's embeddings out beside virtual tokens.
    @Test func virtualTokensNeedUnscaledEmbeddings() throws {
        let choice = MethodChoice(PromptTuning.Implementation.self, PromptTuning.Configuration())
        #expect(throws: PEFTError.self) {
            try choice.plan(for: ModelOutline(try Models.load("decoders/falcon_h1")))
        }
        #expect(try choice.plan(for: ModelOutline(Models.load("decoders/falcon_h1-biases"))).count == 1)
    }
}
