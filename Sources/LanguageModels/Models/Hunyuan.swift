import Foundation
import PEFTSupport

extension ModelFamily {
    /// The dense models of Hunyuan (Tencent 2025): a Llama that normalizes each head of queries and keys after RoPE.
    static let hunyuan = ModelFamily(
        name: "hunyuan_v1_dense", constructor: .generator { try Llama(LlamaConfiguration($0, .hunyuan, family: $1)) },
        modules: .llama, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's.
        adapterTargets: .likeLlama(),
        gguf: .architecture(.hunyuan))
}

extension GGUFArchitecture {
    static let hunyuan = GGUFArchitecture(
        name: "hunyuan-dense", modelClass: "HunYuanDenseV1ForCausalLM", tensors: .hunyuan, pairsNeighbors: false,
        addsOneToNorms: false, hasRotaryFactors: false
    ) { _, _ in ["hidden_act": "silu", "attention_bias": false] }
}

extension GGUFTensorNames {
    static let hunyuan: GGUFTensorNames = {
        let own: Set<String> = ["attn_q_norm", "attn_k_norm"]
        return GGUFTensorNames(
            outer: llama.outer,
            inner: llama.inner.filter { !own.contains($0.file) } + [
                ("attn_q_norm", "self_attn.query_layernorm"), ("attn_k_norm", "self_attn.key_layernorm"),
            ], biases: [])
    }()
}

extension LlamaVariant {
    static let hunyuan = LlamaVariant(
        defaults: ["vocab_size": 290_943, "rms_norm_eps": 1e-5], keyHeads: nil, headSize: nil,
        qkvBias: .configured("attention_bias"), outputBias: .configured("attention_bias"), feedForwardBias: .never,
        queryNorms: .eachRotatedHead,
        rotary: { read, size in
            let rotary = try RotaryPositions(
                read, headSize: size,
                adjust: { settings in
                    // With an alpha, 'dynamic' is NTK-aware scaling of θ by a constant, whatever the length.
                    guard settings.kind == "dynamic", let alpha = settings.parameters?["alpha"]?.double, alpha != 0
                    else {
                        return
                    }
                    guard alpha > 0, settings.size > 2 else {
                        throw PEFTError(
                            "config.json: 'alpha' of the RoPE parameters is \(alpha)", remedy: "use a number above 0")
                    }
                    settings.base *= pow(alpha, Double(settings.size) / Double(settings.size - 2))
                    settings.kind = "default"
                })
            return (rotary, nil)
        }, windows: AttentionWindows.none)
}
