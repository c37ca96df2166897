import PEFTSupport
import Torch
import TorchNN

extension ModelFamily {
    /// Granite 4 (IBM 2025): most layers are Mamba-2 layers, the others attentions, mostly without positions; each has a shared
    /// feed-forward network, with experts beside it or alone; scaled as Granite 3.
    static let graniteMoEHybrid = ModelFamily(
        name: "granitemoehybrid",
        constructor: .generator { try Llama(LlamaConfiguration($0, .graniteMoEHybrid, family: $1)) },
        modules: ModuleNames(
            prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"),
            attention: ["self_attn", "mamba"], feedForward: ["shared_mlp", "block_sparse_moe"],
            unquantized: ["router"], experts: .granite),
        tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Llama's, and the projections of the inputs of Mamba-2 layers.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj", "in_proj"]), adaLoRA: .named(["q_proj", "v_proj", "in_proj"]),
            ia3: .named(["k_proj", "v_proj", "in_proj", "output_linear"]), ia3FeedForward: ["output_linear"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.graniteMoEHybrid))
}

extension LlamaVariant {
    static let graniteMoEHybrid = LlamaVariant(
        defaults: ["hidden_size": 4096, "rms_norm_eps": 1e-6],
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .never, queryNorms: .none,
        feedForwardKey: "",
        experts: { read, layers in
            let most = ConfigurationReader.Size.heads.rawValue
            guard try read.integer("num_local_experts", default: 8, in: 0...most) > 0 else {
                // Keys of the experts that the model lacks.
                _ = try read.integer("num_experts_per_tok", .heads, default: 2)
                _ = try RouterLoss(read, experts: 1, choices: 1, coefficient: 0.001)
                return nil
            }
            return try .granite(read, layers: layers)
        },
        details: { read, layers in
            var details = try multipliers(read)
            let types = try HybridLayers.types(
                read, keys: ["layer_types", "layers_block_type"], layers: layers,
                allowed: ["linear_attention", "full_attention"])
            let settings = try Mamba2.Settings(read, innerSize: Mamba2.Settings.expanded(read))
            details.hybrid = HybridLayers(
                mixer: .stateSpace(settings),
                layers: (types ?? Array(repeating: "linear_attention", count: layers))
                    .map { $0 == "linear_attention" })
            let positions = try read.string("position_embedding_type", default: "nope")
            guard ["nope", "rope"].contains(positions) else {
                throw PEFTError(
                    "config.json: 'position_embedding_type' is '\(positions)', which is not supported",
                    remedy: "use rope or nope")
            }
            details.rotatedLayers = Array(repeating: positions == "rope", count: layers)
            details.sharedSize = try read.integer("shared_intermediate_size", .width, default: 1024)
            return details
        }, windows: AttentionWindows.none)
}

/// A feed-forward network that computes every token, alone or beside experts.
final class SharedFeedForward: FeedForward {
    @ModuleInfo(key: "block_sparse_moe") var experts: SparseFeedForward?
    @ModuleInfo(key: "shared_mlp") var shared: FusedFeedForward

    init(_ size: Int, hidden: Int, activation: Activation, experts: ExpertSettings?) {
        _experts.wrappedValue = experts.map { SparseFeedForward($0, size: size, activation: activation) }
        _shared.wrappedValue = FusedFeedForward(
            size, hidden: hidden, activation: activation, names: ("input_linear", "output_linear"))
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        experts.map { $0(x, context) + shared(x) } ?? shared(x)
    }
}
