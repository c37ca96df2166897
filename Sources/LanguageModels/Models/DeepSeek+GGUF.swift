import PEFTSupport
import Torch

extension GGUFArchitecture {
    static let deepSeekV2 = deepSeek("DeepseekV2ForCausalLM", isSigmoid: false)
    static let deepSeekV3 = deepSeek("DeepseekV3ForCausalLM", isSigmoid: true)

    /// llama.cpp's `deepseek2`, whose `expert_gating_func` tells versions apart: 1 for a softmax, 2 for sigmoids.
    private static func deepSeek(_ modelClass: String, isSigmoid: Bool) -> GGUFArchitecture {
        let experts = GGUFExperts(
            normalizes: nil, hasSize: true, hasShared: true, shared: "shared_experts", isSharedGated: false)
        return GGUFArchitecture(
            name: "deepseek2", modelClass: modelClass, tensors: .deepSeek(experts), pairsNeighbors: false,
            addsOneToNorms: false, yarn: GGUFYaRN(scales: false), hasRotaryFactors: false, isLatent: true,
            experts: experts,
            forms: [.latentKeys, .renamed("mlp.gate.e_score_correction_bias", "exp_probs_b.bias")],
            isFamily: { ($0["expert_gating_func"]?.integer == 2) == isSigmoid },
            rotary: { read, fields in
                guard fields["rope_scaling"]?["rope_type"] == "yarn", var scaling = fields["rope_scaling"]?.object
                else { return }
                if read["rope.scaling.yarn_log_multiplier"] == nil {
                    scaling["attention_factor"] = 1.0
                } else {
                    let scale = 10 * (try read.number("rope.scaling.yarn_log_multiplier"))
                    (scaling["mscale"], scaling["mscale_all_dim"]) = (.number(scale), .number(scale))
                }
                fields["rope_scaling"] = .object(scaling)
            }, details: describeDeepSeek
        ) { read, sizes in
            try read.deepSeek(sizes, isSigmoid: isSigmoid).merging(
                experts.configuration(read, countKey: "n_routed_experts")
            ) { $1 }
        }
    }

    private static func describeDeepSeek(_ settings: LlamaConfiguration, _ description: inout GGUFDescription) throws
    {
        guard let latent = settings.latent, let experts = settings.experts,
            case .grouped(let groups) = experts.router,
            let shared = experts.shared
        else { return }
        func require(_ condition: Bool, _ difference: String) throws {
            guard condition else { throw description.refusal(difference) }
        }
        // Norms of latents have this one in transformers, and that of the other norms in llama.cpp.
        try require(settings.epsilon == 1e-6, "the epsilon of its norms is \(settings.epsilon) ('rms_norm_eps')")
        try require(!latent.hasBias && !shared.hasBias, "its projections have biases")
        try require(settings.rotary.settings.pairsNeighbors, "RoPE rotates dimensions that aren't neighbors")
        try require(!settings.isTied, "the output layer is tied to the embedding")
        try require(
            groups.isSigmoid || groups.chosen == groups.count,
            "the best expert of a group is its score ('topk_method')")
        // llama.cpp knows these models by their number of layers.
        try require(
            latent.queryRank != nil || [26, 27].contains(settings.layers), "queries have no latent ('q_lora_rank')")
        let dense = experts.isSparse.firstIndex(of: true) ?? settings.layers
        description.add("leading_dense_block_count", .integer(dense))
        description.add("expert_shared_count", .integer(shared.size / max(1, experts.feedForwardSize)))
        description.add("expert_weights_scale", .number(Float(groups.scale)))
        if groups.normalizes { description.add("expert_weights_norm", .flag(true)) }
        description.add("expert_gating_func", .integer(groups.isSigmoid ? 2 : 1))
        description.add("expert_group_count", .integer(groups.count))
        description.add("expert_group_used_count", .integer(groups.chosen))
        if settings.rotary.settings.kind == "yarn",
            let all = settings.rotary.settings.parameters?["mscale_all_dim"]?.double
        {
            description.add("rope.scaling.yarn_log_multiplier", .number(Float(0.1 * all)))
        }
    }
}

extension GGUFDescription {
    /// The sizes of a model with latent attention, whose keys and values are latents to llama.cpp.
    mutating func addLatentSizes(_ latent: LatentAttention.Settings, of model: any GGUFWritable) {
        addSizes(
            of: model, keys: (1, latent.keyRank + latent.rotatedSize, latent.keyRank), rotated: latent.rotatedSize)
        if let rank = latent.queryRank { add("attention.q_lora_rank", .integer(rank)) }
        add("attention.kv_lora_rank", .integer(latent.keyRank))
        add("attention.key_length_mla", .integer(latent.plainSize + latent.rotatedSize))
        add("attention.value_length_mla", .integer(latent.valueSize))
    }
}

extension GGUFForm {
    /// The projection of latents to each head's keys and values: two tensors, of which that of keys is transposed.
    fileprivate static let latentKeys = GGUFForm(
        model: "self_attn.kv_b_proj.weight", files: ["attn_k_b.weight", "attn_v_b.weight"], axes: 3,
        split: { tensor, sizes in
            let (plain, value) = sizes.latent ?? (0, 0)
            let parts = tensor.reshaped(sizes.heads, plain + value, tensor.dim(1)).split(axis: 1, [plain, value])
            return [parts[0].transposed(), parts[1]]
        },
        join: { parts in
            let both = Tensor.concatenated([parts[0].transposed(), parts[1]], axis: 1)
            return both.reshaped(both.dim(0) * both.dim(1), both.dim(2))
        })
}

extension GGUFTensorNames {
    fileprivate static func deepSeek(_ experts: GGUFExperts) -> GGUFTensorNames {
        let names = GGUFTensorNames.experts(experts)
        return GGUFTensorNames(
            outer: names.outer,
            inner: names.inner + [
                ("attn_q_a", "self_attn.q_a_proj"), ("attn_q_a_norm", "self_attn.q_a_layernorm"),
                ("attn_q_b", "self_attn.q_b_proj"), ("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"),
                ("attn_kv_a_norm", "self_attn.kv_a_layernorm"),
                // Of files from before 2025, instead of the two tensors.
                ("attn_kv_b", "self_attn.kv_b_proj"),
            ], biases: [])
    }
}

extension GGUFSettings {
    /// Keys of `config.json` of DeepSeek's families.
    fileprivate func deepSeek(_ sizes: GGUFSizes, isSigmoid: Bool) throws -> [String: JSON] {
        let rotated = sizes.headSize
        let key = try count("attention.key_length_mla", default: count("attention.key_length", default: rotated + 1))
        let value = try count("attention.value_length_mla", default: count("attention.value_length", default: key))
        guard key > rotated else {
            throw PEFTError(
                "\(file.url.path) applies RoPE to \(rotated) of \(key) head dimensions, which is not supported",
                remedy: "the file is damaged; download it again")
        }
        let groups = try count("expert_group_count", default: 1)
        let chosen = try count("expert_group_used_count", default: groups)
        guard isSigmoid || chosen == groups else {
            throw PEFTError(
                "\(file.url.path) chooses the experts of a softmax from groups, which llama.cpp scores otherwise than the"
                    + " model's authors",
                remedy: "use the model's folder")
        }
        let hasLatent = hasTensor("blk.0.attn_q_a.weight")
        var fields: [String: JSON] = [
            "num_key_value_heads": .integer(sizes.heads), "attention_bias": false,
            "q_lora_rank": hasLatent ? .integer(try count("attention.q_lora_rank")) : .null,
            "kv_lora_rank": .integer(try count("attention.kv_lora_rank")),
            "qk_rope_head_dim": .integer(rotated), "qk_nope_head_dim": .integer(key - rotated),
            "v_head_dim": .integer(value),
            "moe_intermediate_size": .integer(try count("expert_feed_forward_length")),
            "n_shared_experts": .integer(try count("expert_shared_count")),
            "first_k_dense_replace": .integer(try count("leading_dense_block_count", default: 0, from: 0)),
            "routed_scaling_factor": .number(try number("expert_weights_scale", default: 1)),
            "norm_topk_prob": .bool(self["expert_weights_norm"]?.flag ?? false),
            "n_group": .integer(groups), "topk_group": .integer(chosen),
            "topk_method": isSigmoid ? "noaux_tc" : "greedy",
        ]
        if isSigmoid { fields["rope_interleave"] = true }
        return fields
    }
}
