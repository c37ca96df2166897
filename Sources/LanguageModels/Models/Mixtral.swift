import PEFTSupport

extension ModelFamily {
    /// Mixtral (Jiang et al. 2024): a Mistral whose layers have experts.
    static let mixtral = ModelFamily(
        name: "mixtral", constructor: .generator { try Llama(LlamaConfiguration($0, .mixtral, family: $1)) },
        modules: .experts(.mixtral), tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj"]), ia3FeedForward: [],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.mixtral))
}

extension GGUFArchitecture {
    /// llama.cpp's `llama` with experts.
    static let mixtral: GGUFArchitecture = {
        let experts = GGUFExperts(normalizes: true)
        return GGUFArchitecture(
            name: "llama", modelClass: "MixtralForCausalLM", tensors: .experts(experts, biases: []),
            pairsNeighbors: true, addsOneToNorms: false, experts: experts
        ) { read, _ in
            try experts.configuration(read, countKey: "num_local_experts")
        }
    }()
}

extension LlamaVariant {
    static let mixtral = LlamaVariant(
        defaults: [
            "intermediate_size": 14336, "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
        ],
        keyHeads: 8, headSize: nil, qkvBias: .never, outputBias: .never, feedForwardBias: .never, queryNorms: .none,
        experts: { read, layers in
            // transformers multiplies the layer's input by noise.
            guard try read.number("router_jitter_noise", default: 0) == 0 else {
                throw PEFTError(
                    "config.json: 'router_jitter_noise' isn't 0, which is not supported",
                    remedy: "set it to 0, as in published models")
            }
            let (count, choices) = try ExpertSettings.counts(read, key: "num_local_experts", count: 8, choices: 2)
            return ExpertSettings(
                count: count, choices: choices,
                feedForwardSize: try read.integer("intermediate_size", .width),
                isSparse: Array(repeating: true, count: layers),
                loss: try RouterLoss(read, experts: count, choices: choices, coefficient: 0.001))
        }
    ) { read, layers in
        let window = try read.optionalInteger("sliding_window", default: nil)
        return Array(repeating: window, count: layers)
    }
}

extension ModuleNames {
    /// Llama's names with experts.
    static func experts(_ experts: ExpertNames) -> ModuleNames {
        ModuleNames(
            prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"), attention: ["self_attn"],
            feedForward: ["mlp", "block_sparse_moe", "feed_forward"], unquantized: ["gate", "router"],
            experts: experts)
    }
}
