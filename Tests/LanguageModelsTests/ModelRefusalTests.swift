import Foundation
import PEFTSupport
import TestSupport
import Testing
import Torch
import TorchNN
import TorchTestSupport

@testable import LanguageModels

/// What a configuration asks for and no family does is refused by name; files that don't fit it get one line that says
/// which tensor and why.
@Suite struct ModelRefusalTests {
    struct Case: Sendable, CustomTestStringConvertible {
        /// The fixture whose configuration is changed.
        let fixture: String
        let key: String
        let value: JSON
        /// Words of the error.
        let words: String
        var testDescription: String { "\(fixture) with \(key) \(value.text(indent: nil))" }

        init(_ fixture: String, _ key: String, _ value: JSON, _ words: String) {
            (self.fixture, self.key, self.value, self.words) = (fixture, key, value, words)
        }
    }

    static let cases = [
        Case("llama", "model_type", "phimoe", "its router draws random numbers"),
        Case("mixtral", "router_jitter_noise", 0.1, "'router_jitter_noise' isn't 0"),
        Case("mixtral", "num_experts_per_tok", 9, "'num_experts_per_tok' is 9, but 'num_local_experts' is 4"),
        Case("qwen3_moe", "mlp_only_layers", "all", "'mlp_only_layers' is"),
        Case("deepseek_v2", "topk_method", "noaux_tc", "'topk_method' is 'noaux_tc'"),
        Case("deepseek_v2", "norm_topk_prob", true, "'norm_topk_prob' is true"),
        Case("deepseek_v3", "n_group", 4, "'n_group' is 4 and 'topk_group' 1"),
        Case("deepseek_v3", "num_key_value_heads", 2, "'num_key_value_heads' is 2"),
        Case(
            "qwen3_next", "linear_num_key_heads", 3,
            "'linear_num_value_heads' is 4, but 'linear_num_key_heads' is 3"),
        Case("qwen3_5_text-types", "layer_types", ["full_attention"], "'layer_types' doesn't list a type"),
        Case(
            "qwen3_5_text-types", "layer_types", ["full_attention", "sliding_attention", "linear_attention"],
            "'layer_types' has 'sliding_attention'"),
        Case("qwen3_5", "text_config", ["num_experts": 8], "'text_config' has 'num_experts'"),
        Case("qwen3_5_moe", "text_config", ["model_type": "qwen3_5_text"], "not supported in this model"),
        Case("llama4_text", "layer_types", ["full_attention", "full_attention"], "'layer_types' differs"),
        Case("llama", "model_type", "persimmon", "'persimmon', which is not supported"),
        Case("llama", "model_type", "rwkv", "'rwkv', which is not supported"),
        Case(
            "gemma3_vision", "text_config", ["model_type": "llama"], "'llama', which is not supported in this model"),
        Case("gemma3_vision", "text_config", 3, "'text_config' is 3"),
        Case("gemma3_vision", "audio_config", [:], "'audio_config'"),
        Case("qwen3_vl", "text_config", ["num_experts": 8], "'text_config' has 'num_experts'"),
        Case("qwen3_vl", "architectures", ["Qwen3VLForSequenceClassification"], "can't do the task classification"),
        Case("marian", "share_encoder_decoder_embeddings", false, "'share_encoder_decoder_embeddings' is false"),
        Case("marian", "decoder_vocab_size", 90, "'decoder_vocab_size' isn't 'vocab_size'"),
        Case("bart", "encoder_attention_heads", 3, "isn't divisible by 3 heads ('encoder_attention_heads')"),
        Case("m2m_100", "decoder_start_token_id", 0, "'decoder_start_token_id' is 0, as 'pad_token_id'"),
        Case("mbart", "decoder_layerdrop", 1, "'decoder_layerdrop' is 1"),
        Case("pegasus", "activation_function", "mish", "'activation_function' is 'mish'"),
        Case("llama", "num_local_experts", 8, "'num_local_experts'"),
        Case("qwen3", "num_experts", 8, "'num_experts'"),
        Case("llama", "quantization_config", ["quant_method": "aqlm"], "'quantization_config"),
        Case("gemma3", "vision_config", ["hidden_size": 8], "'vision_config'"),
        Case("llama", "hidden_size", 1_000_000_000, "'hidden_size' is 1000000000"),
        Case("llama", "num_hidden_layers", 100_000_000, "'num_hidden_layers' is 100000000"),
        Case("llama", "vocab_size", 1_000_000_000, "'vocab_size' is 1000000000"),
        Case("gpt2-upcast", "n_layer", 1_000_000, "'n_layer' is 1000000"),
        Case("mt5", "relative_attention_max_distance", 1, "'relative_attention_max_distance' is 1"),
        Case("mt5", "d_kv", 1_000_000, "'d_kv' is 1000000"),
        Case("llama", "hidden_act", "mish", "'hidden_act' is 'mish'"),
        Case("gemma2", "hidden_activation", "quick_gelu", "'hidden_activation' is 'quick_gelu'"),
        Case("phi3", "hidden_act", "laplace", "'hidden_act' is 'laplace'"),
        Case("gpt2-upcast", "activation_function", "xielu", "'activation_function' is 'xielu'"),
        Case("gpt2-upcast", "add_cross_attention", true, "'add_cross_attention'"),
        Case("mt5", "feed_forward_proj", "gated-mish", "'feed_forward_proj' is 'gated-mish'"),
        Case("llama", "rope_scaling", ["rope_type": "proportional"], "RoPE type 'proportional'"),
        Case("llama", "rope_scaling", ["type": "mrope"], "RoPE type 'mrope'"),
        Case("llama", "rope_scaling", ["type": "linear"], "'linear' has no 'factor'"),
        Case("llama", "rope_scaling", ["rope_type": "llama3", "factor": 2], "has no 'low_freq_factor'"),
        Case(
            "phi3", "rope_scaling", ["type": "longrope", "short_factor": [1], "long_factor": [1, 2]],
            "1 values in 'short_factor'"),
        Case("phi3", "rope_scaling", ["type": "linear", "factor": 2], "doesn't support the RoPE type 'linear'"),
        Case("llama", "partial_rotary_factor", 0.5, "'partial_rotary_factor' is 0.5"),
        Case("phi3", "partial_rotary_factor", 0.4, "3 dimensions"),
        Case("phi3", "partial_rotary_factor", 1.5, "'partial_rotary_factor' is 1.5"),
        Case("llama", "sliding_window", 4, "'sliding_window' is 4"),
        Case(
            "mistral", "layer_types", ["full_attention", "sliding_attention", "sliding_attention"],
            "of a Mistral are alike"),
        Case("phi3", "layer_types", ["full_attention", "full_attention", "full_attention"], "of a Phi-3 are alike"),
        Case("qwen2", "layer_types", ["full_attention"], "each of the 3 layers"),
        Case(
            "qwen2", "layer_types", ["full_attention", "full_attention", "chunked_attention"], "'chunked_attention'"),
        Case(
            "qwen2-unused", "layer_types", ["full_attention", "full_attention", "sliding_attention"],
            "there is no 'sliding_window'"),
        Case(
            "gemma2", "layer_types", ["linear_attention", "full_attention", "full_attention"], "'linear_attention'"),
        Case("gemma3", "attn_logit_softcapping", 50, "'attn_logit_softcapping'"),
        Case("gemma2", "attn_logit_softcapping", -1, "'attn_logit_softcapping' is -1"),
        Case("gemma3", "use_bidirectional_attention", true, "'use_bidirectional_attention'"),
        Case("gemma", "num_key_value_heads", 3, "4 attention heads aren't divisible by 3"),
        Case("qwen3", "head_dim", 7, "7 dimensions"),
        Case("llama", "rope_parameters", "default", "'rope_parameters' is \"default\""),
        Case("arcee", "hidden_act", "mish", "'hidden_act' is 'mish'"),
        Case("llama", "hidden_act", "relu2", "'hidden_act' is 'relu2'"),
        Case("granite", "residual_multiplier", "a", "'residual_multiplier' is"),
        Case("smollm3", "no_rope_layers", [1, 0], "each of the 3 layers"),
        Case("smollm3", "no_rope_layers", [1, 0, 2], "each of the 3 layers"),
        Case(
            "smollm3", "layer_types", ["full_attention", "sliding_attention", "full_attention"],
            "there is no 'sliding_window'"),
        Case("olmo3", "layer_types", ["chunked_attention"], "each of the 3 layers"),
        Case("olmo2", "partial_rotary_factor", 0.5, "'partial_rotary_factor' is 0.5"),
        Case("glm4", "partial_rotary_factor", 0.4, "3 dimensions"),
        Case(
            "glm4", "partial_rotary_factor", 0.1, "0 dimensions of a head, as 'head_dim' and 'partial_rotary_factor'"),
        Case("hunyuan_v1_dense", "rope_parameters", ["rope_type": "dynamic", "alpha": -1], "'alpha'"),
        Case("ministral3", "rope_parameters", ["rope_type": "yarn", "factor": 4], "no 'llama_4_scaling_beta'"),
        Case(
            "ministral3", "rope_parameters", ["rope_type": "default", "llama_4_scaling_beta": 0.1],
            "no 'original_max_position_embeddings'"),
        Case("ministral3", "layer_types", ["full_attention"], "of a Ministral 3 are alike"),
        Case("cohere2", "layer_types", ["full_attention"], "each of the 3 layers"),
        Case("gemma4", "use_bidirectional_attention", "all", "'use_bidirectional_attention' is not 'vision'"),
        Case("gemma4", "num_kv_shared_layers", 5, "'num_kv_shared_layers' is 5, but none"),
        Case("gemma4", "num_kv_shared_layers", 6, "'num_kv_shared_layers' is 6"),
        Case("gemma4", "vocab_size_per_layer_input", 95, "'vocab_size_per_layer_input' is 95"),
        Case("gemma4", "enable_moe_block", true, "'enable_moe_block' is true"),
        Case("gemma4", "rope_scaling", ["rope_type": "default"], "'rope_scaling' is set"),
        Case("gemma4", "rope_parameters", ["full_attention": [:]], "'rope_parameters' has no 'sliding_attention'"),
        Case("gemma4", "per_layer_config", ["0": ["head_dim": 8]], "'per_layer_config' is"),
        Case("gemma4", "per_layer_config", ["1": ["skip": ["mlp"]]], "'per_layer_config' is"),
        Case("gemma4-experts", "top_k_experts", 5, "don't describe experts"),
        Case("gemma4-experts", "num_global_key_value_heads", 3, "3 key-value heads of full-attention"),
        Case("gemma4_vision", "text_config", ["model_type": "gemma3_text"], "'gemma3_text', which is not"),
        Case("gemma3n", "hidden_size_per_layer_input", 0, "'hidden_size_per_layer_input' is 0"),
        Case("gemma3n", "intermediate_size", [20, 20], "each of the 5 layers"),
        Case("gemma3n", "activation_sparsity_pattern", [0, 0, 0, 0, 1], "each of the 5 layers"),
        Case("gemma3n", "altup_active_idx", 3, "'altup_active_idx' is 3"),
        Case("gemma3n", "altup_coef_clip", 0.5, "'altup_coef_clip' is 0.5"),
    ]

    @Test(arguments: cases) func isRefusedByName(item: Case) throws {
        var fields = try #require(try JSON.read(DecoderFixture(name: item.fixture).file("config.json")).object)
        fields[item.key] = item.value
        let error = try #require(throws: PEFTError.self) {
            try ModelRegistry.outline(.object(fields), file: "config.json")
        }
        #expect(error.problem.contains(item.words), "\(error.problem)")
        #expect(!error.problem.contains("\n"))
    }

    /// transformers reads a `head_dim` that Cohere 2's class doesn't declare, and writes it.
    @Test func cohere2HasTheHeadSizeOfItsFile() throws {
        var fields = try #require(try JSON.read(DecoderFixture(name: "cohere2").file("config.json")).object)
        fields["head_dim"] = 10
        let model = try ModelRegistry.outline(.object(fields), file: "config.json")
        let heads = try #require(fields["num_attention_heads"]?.int)
        let query = try #require(model.parameters().first { $0.path.hasSuffix("q_proj.weight") })
        #expect(query.parameter.tensor.dim(0) == 10 * heads)
    }

    /// One of each family's folders.
    static let families = ["llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3", "mt5"]

    /// Writes a fixture's weights with a change, and gives the error of loading them.
    private func failure(_ name: String, _ change: (inout [String: Tensor]) throws -> Void) throws -> PEFTError {
        let fixture = DecoderFixture(name: name)
        let owner = try fixture.expected()["weights"]?.string ?? name
        let file = try SafetensorsFile(DecoderFixture(name: owner).file("model.safetensors"))
        var tensors: [String: Tensor] = [:]
        for key in file.entries.keys { tensors[key] = try file.tensor(key) }
        try change(&tensors)
        return try withModelFolder(JSON.read(fixture.file("config.json")), weights: nil) { folder in
            try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            return try #require(throws: PEFTError.self) { try ModelFolder(folder).load() }
        }
    }

    private func someProjection(_ tensors: [String: Tensor]) throws -> String {
        try #require(
            tensors.keys.sorted().first { $0.contains("o_proj.weight") || $0.hasSuffix("SelfAttention.o.weight") })
    }

    @Test(arguments: families) func aMissingTensorIsNamed(name: String) throws {
        var key = ""
        let error = try failure(name) {
            key = try someProjection($0)
            $0[key] = nil
        }
        #expect(error.problem.contains("lacks 1 of the model's tensors; the first is '\(key)'"))
    }

    @Test(arguments: families) func anUnknownTensorIsNamed(name: String) throws {
        let error = try failure(name) { $0["model.layers.0.self_attn.sinks"] = .zeros([4]) }
        #expect(
            error.problem.contains(
                "1 tensors that the model doesn't have; the first is 'model.layers.0.self_attn.sinks'"))
    }

    @Test(arguments: families) func aMisshapenTensorIsNamed(name: String) throws {
        var key = ""
        let error = try failure(name) {
            key = try someProjection($0)
            $0[key] = .zeros([3, 5])
        }
        #expect(error.problem.contains("tensor '\(key)'") && error.problem.contains("has shape [3, 5]"))
    }

    /// Files of the stack alone have no prefix, and published ones some buffers.
    @Test(arguments: [("llama-biases", "model."), ("gemma2", "model."), ("gpt2-unscaled", "transformer.")])
    func namesWithoutThePrefixAreUnderstood(name: String, prefix: String) throws {
        let fixture = DecoderFixture(name: name)
        let expected = try fixture.expected()
        let owner = expected["weights"]?.string ?? name
        let file = try SafetensorsFile(DecoderFixture(name: owner).file("model.safetensors"))
        var tensors: [String: Tensor] = [:]
        for key in file.entries.keys { tensors[String(key.trimmingPrefix(prefix))] = try file.tensor(key) }
        tensors[prefix == "model." ? "layers.0.self_attn.rotary_emb.inv_freq" : "h.0.attn.bias"] = .ones([2])
        try withModelFolder(JSON.read(fixture.file("config.json")), weights: nil) { folder in
            try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            let (model, original) = (try ModelFolder(folder).load(), try fixture.load())
            let batch = model.batch(expected.rows, device: .cpu)
            #expect(
                try withTorchErrors {
                    withoutGradients { model.logits(batch).isIdentical(to: original.logits(batch)) }
                })
        }
    }

    /// A GPT-2 whose file has an output layer of its own uses it.
    @Test func anUntiedGPT2UsesItsOwnOutputLayer() throws {
        let fixture = DecoderFixture(name: "gpt2-inverse-layer")
        let file = try SafetensorsFile(fixture.file("model.safetensors"))
        var tensors: [String: Tensor] = [:]
        for key in file.entries.keys { tensors[key] = try file.tensor(key) }
        let table = try #require(tensors["transformer.wte.weight"])
        tensors["lm_head.weight"] = table * 2
        try withModelFolder(JSON.read(fixture.file("config.json")), weights: nil) { folder in
            try SafetensorsFile.write(tensors, metadata: [:], to: folder.appendingPathComponent("model.safetensors"))
            let (model, original) = (try ModelFolder(folder).load(), try fixture.load())
            let batch = model.batch(try fixture.expected().rows, device: .cpu)
            let (twice, once) = try withTorchErrors {
                withoutGradients { (model.logits(batch), original.logits(batch)) }
            }
            #expect(relativeDifference(twice, once * 2) < 1e-6)
        }
    }

    @Test func headsOfOneDimensionAreRejected() throws {
        let json: JSON = ["model_type": "gptj", "n_embd": 16, "n_head": 16, "rotary_dim": 2]
        let error = try #require(throws: PEFTError.self) {
            try ModelRegistry.outline(json, file: "config.json")
        }
        #expect(error.problem.contains("heads of one dimension"), "\(error.problem)")
    }
}
