import PEFTSupport
import Torch
import TorchNN

/// Nemotron-H and Nemotron 3 (NVIDIA 2025): each layer is a Mamba-2 layer, an attention without positions, a feed-forward
/// network or a mixture of experts.
package final class NemotronH: Module, CausalModel {
    let settings: NemotronHConfiguration
    package var folderSettings = FolderSettings()
    @ModuleInfo(key: "model.embeddings") var embedding: Embedding
    @ModuleInfo(key: "model.input_site") var inputSite: InputSite
    @ModuleInfo(key: "model.layers") var layers: [NemotronHBlock]
    @ModuleInfo(key: "model.norm_f") var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: NemotronHConfiguration) {
        self.settings = settings
        _embedding.wrappedValue = Embedding(settings.vocabularySize, settings.hiddenSize)
        _inputSite.wrappedValue = InputSite(.decoder, size: settings.hiddenSize)
        _layers.wrappedValue = settings.layers.indices.map { NemotronHBlock(settings, layer: $0) }
        _norm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.compactMap { $0.attention?.prefixSite } }
    /// Layers that predict further tokens are not loaded, as in transformers.
    package func isIgnorable(_ name: String) -> Bool { name.hasPrefix("mtp.") }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor { norm(through(layers, x, context)) }
}

/// A norm and one sublayer.
final class NemotronHBlock: Module, StackLayer {
    @ModuleInfo var norm: RMSNorm
    /// An attention or a Mamba-2 layer.
    @ModuleInfo(key: "mixer") var attention: SelfAttention?
    @ModuleInfo(key: "mixer") var feedForward: FeedForward?
    @ModuleInfo(key: "output_site") var output: OutputSite

    init(_ settings: NemotronHConfiguration, layer: Int) {
        _norm.wrappedValue = RMSNorm(settings.hiddenSize, epsilon: settings.epsilon)
        _attention.wrappedValue = settings.attention(ofLayer: layer)
        _feedForward.wrappedValue = settings.feedForward(ofLayer: layer)
        _output.wrappedValue = OutputSite(
            settings.layers[layer].isMixer ? .attention : .feedForward, size: settings.hiddenSize)
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let normed = norm(x)
        let (own, input) = (context.selected(x), context.selected(normed))
        return own + output(attention?(normed, context) ?? feedForward?(input, context) ?? input, input: input)
    }
}

/// A mixture of experts without gates beside a network that computes every token; the experts may work on a projection of the
/// tokens.
final class NemotronHExperts: FeedForward {
    @ModuleInfo(key: "gate") var router: ExpertRouter
    @ModuleInfo var experts: Experts
    @ModuleInfo(key: "shared_experts") var shared: UngatedFeedForward
    @ModuleInfo(key: "fc1_latent_proj") var reduction: Linear?
    @ModuleInfo(key: "fc2_latent_proj") var expansion: Linear?
    private let count: Int

    init(_ settings: NemotronHConfiguration.Experts, _ network: NemotronHConfiguration.Network, size: Int) {
        count = settings.count
        _router.wrappedValue = ExpertRouter(
            .grouped(settings.groups), size: size, experts: settings.count, choices: settings.choices)
        _experts.wrappedValue = Experts(
            settings.count, size: settings.latentSize ?? size, hidden: settings.feedForwardSize,
            activation: network.activation, form: .ungated(isSquared: network.isSquared))
        _shared.wrappedValue = network.make(size, hidden: settings.sharedSize)
        _reduction.wrappedValue = settings.latentSize.map { Linear(size, $0, bias: network.hasBias) }
        _expansion.wrappedValue = settings.latentSize.map { Linear($0, size, bias: network.hasBias) }
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (_, chosen, weights) = router(x)
        let y = experts(
            reduction?(x) ?? x, weights: weights, routing: ExpertRouting(chosen, experts: count))
        return (expansion?(y) ?? y) + shared(x)
    }
}

/// `config.json` of Nemotron-H.
struct NemotronHConfiguration: CausalConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let hiddenSize: Int
    let heads: Int
    let keyHeads: Int
    let headSize: Int
    let epsilon: Double
    let isTied: Bool
    let attentionDropout: Double
    let endTokens: [Int]
    let layers: [Layer]
    /// Size of the hidden layer of feed-forward networks.
    let feedForwardSize: Int
    let activation: Activation
    /// Whether the activation is squared.
    let isSquared: Bool
    let hasFeedForwardBias: Bool
    let stateSpace: Mamba2.Settings
    let experts: Experts
    let json: JSON

    enum Layer: String, Sendable {
        case stateSpace = "linear_attention"
        case attention = "full_attention"
        case feedForward = "mlp"
        case experts = "moe"

        var isMixer: Bool { self == .stateSpace || self == .attention }

        /// Its letter in the pattern of older files.
        init?(letter: Character) {
            switch letter {
            case "M": self = .stateSpace
            case "*": self = .attention
            case "-": self = .feedForward
            case "E": self = .experts
            default: return nil
            }
        }
    }

    /// Feed-forward networks and experts, which have no gate.
    struct Network: Sendable {
        let activation: Activation
        /// Whether the activation is squared.
        let isSquared: Bool
        let hasBias: Bool

        func make(_ size: Int, hidden: Int) -> UngatedFeedForward {
            UngatedFeedForward(size, hidden: hidden, bias: hasBias, activation: activation, isSquared: isSquared)
        }
    }

    struct Experts: Sendable {
        let count: Int
        /// Number of experts per token.
        let choices: Int
        let groups: ExpertRouter.Groups
        /// Sizes of hidden layers.
        let feedForwardSize, sharedSize: Int
        /// Size of the projection of the tokens that experts work on; `nil` for none.
        let latentSize: Int?
    }

    init(_ json: JSON, family: ModelFamily) throws {
        let read = ConfigurationReader(json: Self.renamed(json), defaults: ["num_key_value_heads": 8])
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 131_072)
        hiddenSize = try read.integer("hidden_size", .width, default: 4096)
        (heads, keyHeads, headSize) = try read.heads(count: 32, headSize: 128)
        epsilon = try read.number("layer_norm_epsilon", default: 1e-5)
        isTied = try read.boolean("tie_word_embeddings", default: false)
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [2])
        layers = try Self.layers(read)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 21504)
        let kind: FeedForwardKind
        (kind, activation) = try FeedForwardKind.ungated(isSquared: false)
            .configured(read, key: "mlp_hidden_act", default: "relu2")
        isSquared = if case .ungated(true) = kind { true } else { false }
        hasFeedForwardBias = try read.boolean("mlp_bias", default: false)
        stateSpace = try Self.stateSpace(read, hiddenSize: hiddenSize, epsilon: epsilon)
        experts = try Self.experts(read)
        // Keys that transformers reads and doesn't use.
        for key in ["attention_bias", "mamba_proj_bias", "output_router_logits"] {
            _ = try read.boolean(key, default: false)
        }
        _ = try read.optionalInteger("sliding_window", default: nil)
        _ = try read.integer("max_position_embeddings", .length, default: 4096)
        _ = try read.integer("n_shared_experts", .heads, default: 1)
        _ = try read.number("hidden_dropout", default: 0)
        _ = try Mamba2.StepLimits(read)
    }

    /// The current names of older keys, which count if a file has both.
    private static func renamed(_ json: JSON) -> JSON {
        var fields = json.object ?? [:]
        let older = [
            "mamba_n_groups": "n_groups", "mamba_d_conv": "conv_kernel", "mamba_dt_min": "time_step_min",
            "mamba_conv_bias": "use_conv_bias",
        ]
        for (old, new) in older { if let value = fields[old] { fields[new] = value } }
        return .object(fields)
    }

    private static func stateSpace(
        _ read: ConfigurationReader, hiddenSize: Int, epsilon: Double
    ) throws -> Mamba2.Settings {
        let hasBias = try read.boolean("use_bias", default: false)
        let settings = Mamba2.Settings(
            hiddenSize: hiddenSize, heads: try read.integer("mamba_num_heads", .heads, default: 128),
            headSize: try read.integer("mamba_head_dim", .headSize, default: 64),
            groups: try read.integer("n_groups", .heads, default: 8),
            states: try read.integer("ssm_state_size", .headSize, default: 128),
            width: try read.integer("conv_kernel", default: 4, in: 1...1_024),
            activation: try read.activation("mamba_hidden_act", default: "silu"),
            hasConvolutionBias: try read.boolean("use_conv_bias", default: true), hasInputBias: hasBias,
            hasOutputBias: hasBias, epsilon: epsilon,
            limits: Mamba2.StepLimits(lower: try read.number("time_step_min", default: 0.001)))
        try settings.checkGroups("n_groups")
        return settings
    }

    private static func experts(_ read: ConfigurationReader) throws -> Experts {
        let (count, choices) = try ExpertSettings.counts(read, key: "n_routed_experts", count: 8, choices: 2)
        return Experts(
            count: count, choices: choices,
            groups: try ExpertSettings.groups(
                read, experts: count, choices: choices, isSigmoid: true, count: 1, chosen: 1,
                normalizes: read.boolean("norm_topk_prob", default: true), scale: 1),
            feedForwardSize: try read.integer("moe_intermediate_size", .width, default: 7688),
            sharedSize: try read.integer("moe_shared_expert_intermediate_size", .width, default: 7688),
            latentSize: try read.json["moe_latent_size"] ?? .null == .null
                ? nil : read.integer("moe_latent_size", .width))
    }

    /// The layers of `layers_block_type`, or of the pattern of older files, such as `M-M*`.
    private static func layers(_ read: ConfigurationReader) throws -> [Layer] {
        let most = ConfigurationReader.Size.layers.rawValue
        let keys = ["layers_block_type", "layer_types"]
        if let list = keys.compactMap({ read.json[$0]?.array }).first ?? nil, (1...most).contains(list.count) {
            let types = try HybridLayers.types(
                read, keys: keys, layers: list.count,
                allowed: ["linear_attention", "full_attention", "mlp", "moe"])
            return (types ?? []).compactMap { Layer(rawValue: $0) }
        }
        for key in keys where read.json[key] ?? .null != .null {
            throw PEFTError(
                "config.json: '\(key)' is not a list of 1 to \(most) types",
                remedy: "use a list of linear_attention, full_attention, mlp and moe")
        }
        let pattern = try read.string("hybrid_override_pattern", default: "ME*-")
        let layers = pattern.compactMap { Layer(letter: $0) }
        guard layers.count == pattern.count, (1...most).contains(layers.count) else {
            throw PEFTError(
                "config.json: 'hybrid_override_pattern' is '\(pattern)'",
                remedy: "use 1 to \(most) of the letters M, *, - and E")
        }
        return layers
    }

    var network: Network {
        Network(activation: activation, isSquared: isSquared, hasBias: hasFeedForwardBias)
    }

    /// The mixer of a layer; `nil` for a feed-forward network.
    func attention(ofLayer layer: Int) -> SelfAttention? {
        switch layers[layer] {
        case .stateSpace: return Mamba2(stateSpace, layer: layer)
        case .attention:
            var settings = GroupedQueryAttention.Settings(
                hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize,
                dropout: attentionDropout)
            settings.takesPrefixes = false
            return GroupedQueryAttention(settings, layer: layer, rotary: nil, window: nil)
        case .feedForward, .experts: return nil
        }
    }

    func feedForward(ofLayer layer: Int) -> FeedForward? {
        switch layers[layer] {
        case .stateSpace, .attention: nil
        case .feedForward: network.make(hiddenSize, hidden: feedForwardSize)
        case .experts: NemotronHExperts(experts, network, size: hiddenSize)
        }
    }
}

extension ModelFamily {
    static let nemotronH = ModelFamily(
        name: "nemotron_h", constructor: .generator { try NemotronH(NemotronHConfiguration($0, family: $1)) },
        modules: ModuleNames(
            prefix: "model", embedding: "embeddings", output: .projection("lm_head"),
            attention: ["q_proj", "k_proj", "v_proj", "o_proj", "in_proj", "out_proj", "conv1d"],
            feedForward: [
                "up_proj", "down_proj", "experts", "shared_experts", "gate", "fc1_latent_proj", "fc2_latent_proj",
            ], unquantized: ["gate"],
            olderPrefixes: [("backbone.", "model.")], experts: .nemotron),
        tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "k_proj", "v_proj", "o_proj"]),
            adaLoRA: .named(["q_proj", "k_proj", "v_proj", "o_proj"]),
            // Hugging Face has no defaults for these methods.
            ia3: .named(["k_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"], norms: ["norm", "norm_f"]),
        gguf: .none)
}

extension ExpertNames {
    /// Nemotron's files, whose experts have no gate, with another prefix than the model.
    static let nemotron = ExpertNames(
        separate: (nil, "up_proj", "down_proj"), renamesTargets: false, renamed: [("backbone.", "model.")])
}
