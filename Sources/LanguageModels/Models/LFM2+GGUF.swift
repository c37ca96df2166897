import PEFTSupport
import Torch

extension GGUFArchitecture {
    static let lfm2 = GGUFArchitecture(
        name: "lfm2", modelClass: "Lfm2ForCausalLM",
        tensors: .lfm2(),
        pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false,
        epsilon: ("attention.layer_norm_rms_epsilon", "norm_eps"), isHybrid: true, forms: [.shortConvolution],
        details: describeLFM2
    ) { read, sizes in
        try read.lfm2(sizes).merging([
            "block_auto_adjust_ff_dim": false, "block_ff_dim": .integer(sizes.feedForwardSize),
        ]) { $1 }
    }

    static let lfm2MoE: GGUFArchitecture = {
        let experts = GGUFExperts(network: "feed_forward", normalizes: nil, hasSize: true)
        return GGUFArchitecture(
            name: "lfm2moe", modelClass: "Lfm2MoeForCausalLM",
            tensors: .lfm2(others: experts.others),
            pairsNeighbors: false, addsOneToNorms: false, hasRotaryFactors: false,
            epsilon: ("attention.layer_norm_rms_epsilon", "norm_eps"), isHybrid: true, experts: experts,
            forms: [
                .shortConvolution,
                .renamed("feed_forward.gate.e_score_correction_bias", "exp_probs_b.bias"),
            ],
            details: { settings, description in
                try describeLFM2(settings, &description)
                guard let experts = settings.experts, case .grouped(let groups) = experts.router else { return }
                guard groups.normalizes, groups.scale == 1 else {
                    throw description.refusal(
                        "the weights of a token's experts are scaled, or not normalized ('norm_topk_prob')")
                }
                description.add(
                    "leading_dense_block_count",
                    .integer(experts.isSparse.firstIndex(of: true) ?? settings.layers))
                description.add("expert_gating_func", .integer(2))
            }
        ) { read, sizes in
            let dense = try read.count("leading_dense_block_count", default: 0, from: 0)
            return try read.lfm2(sizes).merging(experts.configuration(read, countKey: "num_experts")) { $1 }.merging([
                "moe_intermediate_size": .integer(try read.count("expert_feed_forward_length")),
                "num_dense_layers": .integer(dense), "norm_topk_prob": true, "routed_scaling_factor": 1.0,
                "use_expert_bias": .bool(read.hasTensor("blk.\(dense).exp_probs_b.bias")),
            ]) { $1 }
        }
    }()

    @Sendable private static func describeLFM2(
        _ settings: LlamaConfiguration, _ description: inout GGUFDescription
    ) throws {
        guard case .convolution(let convolution) = settings.details.hybrid?.mixer else { return }
        guard !convolution.hasBias else { throw description.refusal("convolutions have biases ('conv_bias')") }
        guard convolution.width > 1 else { throw description.refusal("convolutions have a width of 1") }
        description.add("shortconv.l_cache", .integer(convolution.width))
    }
}

extension GGUFForm {
    /// The weights of a convolution, `[channels, 1, width]`, as a matrix.
    fileprivate static let shortConvolution = GGUFForm(
        model: "conv.conv.weight", files: ["shortconv.conv.weight"], axes: 2, isSingle: true,
        split: { tensor, _ in [tensor.reshaped(tensor.dim(0), tensor.dim(-1))] }, join: { $0[0].unsqueezed(1) })
}

extension GGUFTensorNames {
    fileprivate static func lfm2(others: [(file: String, model: String)] = []) -> GGUFTensorNames {
        let names: [(file: String, model: String)] = [
            ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"), ("attn_v", "self_attn.v_proj"),
            ("attn_output", "self_attn.out_proj"), ("attn_q_norm", "self_attn.q_layernorm"),
            ("attn_k_norm", "self_attn.k_layernorm"), ("attn_norm", "operator_norm"), ("ffn_norm", "ffn_norm"),
            ("shortconv.in_proj", "conv.in_proj"), ("shortconv.out_proj", "conv.out_proj"),
            ("ffn_gate", "feed_forward.w1"), ("ffn_up", "feed_forward.w3"), ("ffn_down", "feed_forward.w2"),
        ]
        return GGUFTensorNames(
            outer: [
                ("token_embd", "model.embed_tokens"), ("token_embd_norm", "model.embedding_norm"),
                ("output", "lm_head"),
            ], inner: names + others, biases: [])
    }
}

extension GGUFSettings {
    /// Keys of `config.json` of both families.
    fileprivate func lfm2(_ sizes: GGUFSizes) throws -> [String: JSON] {
        guard let isRecurrent = sizes.isRecurrent else {
            throw PEFTError(
                "\(file.url.path) doesn't say which layers are convolutions ('attention.head_count_kv')",
                remedy: "convert the model again")
        }
        return [
            "layer_types": .array(isRecurrent.map { $0 ? "conv" : "full_attention" }), "conv_bias": false,
            "conv_L_cache": .integer(try count("shortconv.l_cache")),
        ]
    }
}
