import PEFTSupport
import Torch

extension GGUFArchitecture {
    static let graniteMoEHybrid: GGUFArchitecture = {
        let experts = GGUFExperts(network: "block_sparse_moe", router: "router", normalizes: true)
        return GGUFArchitecture(
            name: "granitehybrid", modelClass: "GraniteMoeHybridForCausalLM", tensors: .graniteMoEHybrid(experts),
            pairsNeighbors: true, addsOneToNorms: false, hasRotaryFactors: false, isHybrid: true, experts: experts,
            mayLackExperts: true,
            forms: GGUFForm.stateSpace("mamba") + [
                .halves("shared_mlp.input_linear.weight", ["ffn_gate_shexp.weight", "ffn_up_shexp.weight"], true),
                .halves("shared_mlp.input_linear.weight", ["ffn_gate.weight", "ffn_up.weight"], false),
                GGUFForm(
                    model: "shared_mlp.output_linear.weight", files: ["ffn_down_shexp.weight"], axes: 2,
                    needsExperts: true),
                GGUFForm(
                    model: "shared_mlp.output_linear.weight", files: ["ffn_down.weight"], axes: 2, needsExperts: false
                ),
            ], details: describeGraniteHybrid
        ) { read, sizes in
            guard let isRecurrent = sizes.isRecurrent, let first = isRecurrent.firstIndex(of: true) else {
                throw PEFTError(
                    "\(read.file.url.path) doesn't say which layers are state spaces ('attention.head_count_kv')",
                    remedy: "convert the model again")
            }
            let attention = isRecurrent.firstIndex(of: false) ?? 0
            let hasExperts = read["expert_count"]?.integer ?? 0 > 0
            let shared = try hasExperts ? read.count("expert_shared_feed_forward_length") : sizes.feedForwardSize
            var fields = try read.graniteFactors(sizes).merging(read.stateSpace(sizes, layer: first)) { $1 }
            fields.merge([
                "hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.\(attention).attn_q.bias")),
                "layer_types": .array(isRecurrent.map { $0 ? "mamba" : "attention" }),
                "position_embedding_type": read["rope.scaling.finetuned"]?.flag ?? true ? "rope" : "nope",
                "shared_intermediate_size": .integer(shared), "num_local_experts": 0, "num_experts_per_tok": 1,
            ]) { $1 }
            if hasExperts {
                fields.merge(try experts.configuration(read, countKey: "num_local_experts")) { $1 }
            }
            return fields
        }
    }()

    @Sendable private static func describeGraniteHybrid(
        _ settings: LlamaConfiguration, _ description: inout GGUFDescription
    ) throws {
        guard let states = settings.stateSpace else { return }
        try granite.details(settings, &description)
        try description.add(states)
        guard settings.details.hybrid?.layers.contains(true) == true else {
            throw description.refusal("all of its layers are attentions")
        }
        if settings.experts != nil, let shared = settings.details.sharedSize {
            description.add("expert_shared_feed_forward_length", .integer(shared))
        }
        let isRotated = settings.details.rotatedLayers?.contains(true) ?? true
        description.add("rope.scaling.finetuned", .flag(isRotated))
    }
}

extension GGUFTensorNames {
    fileprivate static func graniteMoEHybrid(_ experts: GGUFExperts) -> GGUFTensorNames {
        GGUFTensorNames(
            outer: llama.outer,
            inner: GGUFTensorNames.experts(experts).inner + [
                ("ssm_in", "mamba.in_proj"), ("ssm_out", "mamba.out_proj"), ("ssm_conv1d", "mamba.conv1d"),
            ])
    }
}

extension GGUFForm {
    /// Two matrices of the file, one above the other.
    fileprivate static func halves(_ model: String, _ files: [String], _ needsExperts: Bool) -> GGUFForm {
        GGUFForm(
            model: model, files: files, axes: 2, needsExperts: needsExperts,
            split: { tensor, _ in tensor.split(axis: 0, [tensor.dim(0) / 2, tensor.dim(0) / 2]) },
            join: { Tensor.concatenated($0) })
    }

    /// The tensors of a Mamba-2 layer that are more than renamed.
    static func stateSpace(_ name: String) -> [GGUFForm] {
        [
            GGUFForm(
                model: "\(name).conv1d.weight", files: ["ssm_conv1d.weight"], axes: 2, isSingle: true,
                split: { tensor, _ in [tensor.reshaped(tensor.dim(0), tensor.dim(-1))] },
                join: { $0[0].unsqueezed(1) }),
            // The model has ln(−a).
            GGUFForm(
                model: "\(name).A_log", files: ["ssm_a"], axes: 2,
                split: { tensor, _ in [-tensor.exp().reshaped(tensor.count, 1)] },
                join: { (-$0[0]).log().reshaped($0[0].count) }),
            GGUFForm(
                model: "\(name).D", files: ["ssm_d"], axes: 2,
                split: { tensor, _ in [tensor.reshaped(tensor.count, 1)] },
                join: { $0[0].reshaped($0[0].count) }),
            .renamed("\(name).dt_bias", "ssm_dt.bias"),
            // llama.cpp's own tools drop the axis of a single group.
            GGUFForm(
                model: "\(name).norm.weight", files: ["ssm_norm.weight"], axes: nil, isSingle: true,
                split: { tensor, sizes in [tensor.reshaped(sizes.stateGroups, tensor.count / sizes.stateGroups)] },
                join: { $0[0].reshaped($0[0].count) }),
        ]
    }
}

extension GGUFDescription {
    /// Adds the sizes of Mamba-2 layers.
    /// - Throws: ``PEFTError`` for layers that llama.cpp would compute differently.
    mutating func add(_ states: Mamba2.Settings) throws {
        guard !states.hasInputBias, !states.hasOutputBias else {
            throw refusal("the projections of Mamba-2 layers have biases ('mamba_proj_bias')")
        }
        guard states.hasConvolutionBias else {
            throw refusal("the convolutions of Mamba-2 layers have no biases ('mamba_conv_bias')")
        }
        guard states.limits.lower == 0, states.limits.upper == nil else {
            throw refusal("the step sizes of Mamba-2 layers are bounded ('time_step_limit')")
        }
        add("ssm.conv_kernel", .integer(states.width))
        add("ssm.state_size", .integer(states.states))
        add("ssm.group_count", .integer(states.groups))
        add("ssm.inner_size", .integer(states.valueWidth))
        add("ssm.time_step_rank", .integer(states.heads))
    }
}

extension GGUFSettings {
    /// Keys of `config.json` for Mamba-2 layers.
    /// - Parameter layer: one of them.
    func stateSpace(_ sizes: GGUFSizes, layer: Int) throws -> [String: JSON] {
        let (inner, heads) = (try count("ssm.inner_size"), try count("ssm.time_step_rank"))
        guard inner.isMultiple(of: heads), inner.isMultiple(of: sizes.hiddenSize) else {
            throw PEFTError(
                "\(file.url.path) has Mamba-2 layers with \(inner) values of \(heads) heads, which is not supported",
                remedy: "use another model")
        }
        return [
            "mamba_d_conv": .integer(try count("ssm.conv_kernel")),
            "mamba_d_state": .integer(try count("ssm.state_size")),
            "mamba_n_groups": .integer(try count("ssm.group_count")), "mamba_n_heads": .integer(heads),
            "mamba_d_head": .integer(inner / heads), "mamba_expand": .integer(inner / sizes.hiddenSize),
            "mamba_conv_bias": .bool(hasTensor("blk.\(layer).ssm_conv1d.bias")), "mamba_proj_bias": false,
        ]
    }
}
