import PEFTSupport
import Torch
import TorchNN

/// Llama (Touvron et al. 2023) and the families that differ from it only in a ``LlamaVariant``. Decoder-only, with
/// RoPE, grouped-query attention and a gated feed-forward network.
package final class Llama: Module, CausalModel {
    package let settings: LlamaConfiguration
    package var folderSettings = FolderSettings()
    @ModuleInfo var embedding: Embedding
    @ModuleInfo var inputSite: InputSite
    @ModuleInfo var layers: [LlamaBlock]
    @ModuleInfo var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?
    /// The own layers and the order of their copies, while these are stacked in their place.
    var ownLayers: [LlamaBlock]?
    package internal(set) var layerOrder: [Int]?

    init(_ settings: LlamaConfiguration) {
        self.settings = settings
        let prefix = settings.family.modules.prefix
        _embedding = ModuleInfo(
            wrappedValue: Embedding(settings.vocabularySize, settings.hiddenSize), key: "\(prefix).embed_tokens")
        _inputSite = ModuleInfo(
            wrappedValue: InputSite(
                .decoder, size: settings.hiddenSize, takesPrompts: settings.details.takesPrompts),
            key: "\(prefix).input_site")
        _layers = ModuleInfo(
            wrappedValue: (0..<settings.layers).map { LlamaBlock(settings, layer: $0) }, key: "\(prefix).layers")
        _norm = ModuleInfo(
            wrappedValue: settings.norm(settings.hiddenSize), key: "\(prefix).\(settings.normKey)")
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.compactMap(\.attention.prefixSite) }
    package func isIgnorable(_ name: String) -> Bool {
        name.hasSuffix("rotary_emb.inv_freq") || modelFamily.modules.otherPart(name) != nil
            || settings.details.ignoresFurtherLayers && isOfFurtherLayer(name)
            || settings.details.ignoredPrefixes.contains { name.hasPrefix($0) }
    }
    /// Whether a tensor belongs to a layer that predicts further tokens, which transformers doesn't load either.
    private func isOfFurtherLayer(_ name: String) -> Bool {
        let parts = modelFamily.modules.canonical(name).split(separator: ".")
        guard parts.count > 2, parts[1] == "layers", let layer = Int(parts[2]) else { return false }
        return layer >= settings.layers
    }
    package func fusedParts(of path: String) -> [FusedPart]? {
        if path.hasSuffix(".gate_up_proj") { return FusedFeedForward.parts(hidden: settings.feedForwardSize) }
        guard let size = settings.details.sharedSize, path.hasSuffix(".shared_mlp.input_linear") else { return nil }
        return FusedFeedForward.parts(hidden: size)
    }

    package var positionLimit: Int? { settings.details.positionLimit }
    var outputScale: Double { settings.details.outputScale }
    var routerLoss: RouterLoss? { settings.experts?.loss }
    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let scale = settings.details.inputScale
        return norm(through(layers, scale == 1 ? x : x * scale, context))
    }
}

final class LlamaBlock: Module, StackLayer {
    @ModuleInfo var attentionNorm: RMSNorm?
    @ModuleInfo var attention: SelfAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo var attentionOutputNorm: RMSNorm?
    @ModuleInfo var feedForwardNorm: RMSNorm?
    @ModuleInfo var feedForward: FeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite
    @ModuleInfo var feedForwardOutputNorm: RMSNorm?
    /// Factor and dropout probability of the sublayers' outputs.
    private let (scale, rate): (Double, Double)

    init(_ settings: LlamaConfiguration, layer: Int) {
        func norm(_ key: String?) -> ModuleInfo<RMSNorm?> {
            ModuleInfo(wrappedValue: key.map { _ in settings.norm(settings.hiddenSize) }, key: key)
        }
        let norms = settings.blockNorms
        (scale, rate) = (settings.details.residualScale, settings.details.residualDropout)
        _attentionNorm = norm(norms.beforeAttention)
        _attention = ModuleInfo(
            wrappedValue: settings.attention(ofLayer: layer),
            key: settings.details.hybrid?.key(ofLayer: layer) ?? "self_attn")
        _attentionOutput.wrappedValue = OutputSite(
            .attention, size: settings.hiddenSize, knowsStream: settings.joinsPlainly)
        _attentionOutputNorm = norm(norms.afterAttention)
        _feedForwardNorm = norm(norms.beforeFeedForward)
        _feedForward = ModuleInfo(
            wrappedValue: settings.feedForward(ofLayer: layer), key: settings.feedForwardKey)
        _feedForwardOutput.wrappedValue = OutputSite(
            .feedForward, size: settings.hiddenSize, knowsStream: settings.joinsPlainly)
        _feedForwardOutputNorm = norm(norms.afterFeedForward)
    }

    /// `[tokens, hiddenSize]` -> `[tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        func joined(_ x: Tensor, _ y: Tensor) -> Tensor {
            let y = dropout(y, rate)
            return x + (scale == 1 ? y : y * scale)
        }
        func stream(_ x: Tensor) -> ResidualStream? { attentionOutput.knowsStream ? ResidualStream(x) : nil }
        var input = attentionNorm?(x) ?? x
        let mixed = attention(input, context)
        input = context.selected(input)
        var x = context.selected(x)
        let attended = attentionOutput(mixed, input: input, stream: stream(x))
        x = joined(x, attentionOutputNorm?(attended) ?? attended)
        input = feedForwardNorm?(x) ?? x
        let fed = feedForwardOutput(feedForward(input, context), input: input, stream: stream(x))
        return joined(x, feedForwardOutputNorm?(fed) ?? fed)
    }
}

/// `config.json` of Llama and similar models.
package struct LlamaConfiguration: CausalConfiguration {
    package let family: ModelFamily
    package let vocabularySize: Int
    package let hiddenSize: Int
    package let feedForwardSize: Int
    package let layers: Int
    package let heads: Int
    /// Number of key-value heads.
    package let keyHeads: Int
    package let headSize: Int
    package let epsilon: Double
    /// Whether the output layer is tied to the embedding.
    package let isTied: Bool
    package let activation: Activation
    package let hasQKVBias: Bool
    package let hasOutputBias: Bool
    package let hasFeedForwardBias: Bool
    let queryNorms: QueryNorms
    let blockNorms: BlockNorms
    let feedForward: FeedForwardKind
    let feedForwardKey: String
    let normKey: String
    let attentionNames: GroupedQueryAttention.Names
    let experts: ExpertSettings?
    /// Latent attention in place of grouped-query attention.
    let latent: LatentAttention.Settings?
    let details: LlamaDetails
    package let attentionDropout: Double
    package let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention.
    package let windows: [Int?]
    /// RoPE of the full-attention layers and of the sliding-window layers.
    let rotary: RotaryPositions
    let localRotary: RotaryPositions
    package let json: JSON

    /// - Parameter text: the keys of a multimodal model's text part, in place of `json`'s.
    init(_ json: JSON, text: JSON? = nil, _ variant: LlamaVariant, family: ModelFamily) throws {
        let read = ConfigurationReader(json: text ?? json, defaults: variant.defaults)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 32000)
        hiddenSize = try read.integer("hidden_size", .width, default: 4096)
        feedForwardSize = try read.integer("intermediate_size", .width, default: 11008)
        layers = try read.integer("num_hidden_layers", .layers, default: 32)
        let count = try read.integer("num_attention_heads", .heads, default: 32)
        (heads, keyHeads, headSize) = try read.heads(
            count: count, keyHeads: variant.keyHeads, headSize: variant.headSize ?? hiddenSize / count)
        epsilon = try read.number(variant.epsilonKey, default: 1e-6)
        (normKey, attentionNames) = (variant.normKey, variant.attentionNames)
        isTied = try read.boolean("tie_word_embeddings", default: false)
        hasQKVBias = try variant.qkvBias.isPresent(read)
        hasOutputBias = try variant.outputBias.isPresent(read)
        hasFeedForwardBias = try variant.feedForwardBias.isPresent(read)
        blockNorms = variant.blockNorms
        attentionDropout = try read.number("attention_dropout", default: 0)
        // A key that is null has the family's default, too.
        let fallback = try ConfigurationReader(json: .object(variant.defaults)).tokens("eos_token_id", default: [2])
        endTokens = try read.tokens("eos_token_id", default: fallback)
        (feedForward, activation) = try variant.feedForward.configured(read)
        feedForwardKey = variant.feedForwardKey
        experts = try variant.experts(read, layers)
        latent = try variant.latent(read)
        windows = try variant.windows(read, layers)
        let rotaries = try variant.rotary(read, headSize)
        (rotary, localRotary) = (rotaries.full, rotaries.local ?? rotaries.full)
        details = try variant.details(read, layers)
        queryNorms = details.queryNorms ?? variant.queryNorms
    }

    func norm(_ size: Int) -> RMSNorm {
        RMSNorm(size, epsilon: epsilon, offset: details.normOffset)
    }

    /// Whether a sublayer's output joins the residual stream as it is.
    var joinsPlainly: Bool {
        blockNorms.afterAttention == nil && blockNorms.afterFeedForward == nil && details.residualScale == 1
    }

    /// RoPE of a layer; `nil` if the layer has no positions.
    func rotary(ofLayer layer: Int) -> RotaryPositions? {
        guard details.rotatedLayers?[layer] ?? true else { return nil }
        return windows[layer] == nil ? rotary : localRotary
    }

    func feedForward(ofLayer layer: Int) -> FeedForward {
        if let size = details.sharedSize {
            return SharedFeedForward(hiddenSize, hidden: size, activation: activation, experts: experts)
        }
        if let experts, experts.isSparse[layer] {
            return SparseFeedForward(experts, size: hiddenSize, activation: activation)
        }
        return feedForward.network(
            hiddenSize, hidden: experts?.denseSize ?? feedForwardSize, bias: hasFeedForwardBias,
            activation: activation, form: details.feedForwardForm)
    }

    func attention(ofLayer layer: Int) -> SelfAttention {
        func own() -> GroupedQueryAttention {
            GroupedQueryAttention(attention, layer: layer, rotary: rotary(ofLayer: layer), window: windows[layer])
        }
        if let mixer = details.hybrid?.mixer(ofLayer: layer, attention: own) { return mixer }
        if let latent { return LatentAttention(latent, layer: layer, rotary: rotary) }
        return own()
    }

    var attention: GroupedQueryAttention.Settings {
        var settings = GroupedQueryAttention.Settings(
            hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasQKVBias: hasQKVBias,
            hasOutputBias: hasOutputBias, scale: details.attentionScale, dropout: attentionDropout)
        (settings.queryNorms, settings.norm) = (queryNorms, { norm($0) })
        (settings.queryGrowth, settings.clip) = (details.queryGrowth, details.clip)
        (settings.unscaledNorm, settings.hasSinks) = (details.unscaledNorm, details.hasSinks)
        // Hugging Face PEFT's prefixes are keys and values of all layers.
        settings.takesPrefixes = details.hybrid == nil
        if case .deltaNet = details.hybrid?.mixer { settings.hasGate = true }
        (settings.keyScale, settings.names) = (details.keyScale, attentionNames)
        return settings
    }
}

extension LlamaConfiguration {
    /// The state spaces of a hybrid model; `nil` without them.
    var stateSpace: Mamba2.Settings? {
        if case .stateSpace(let settings) = details.hybrid?.mixer { settings } else { nil }
    }
}

extension Llama: GGUFWritable {
    var ggufSizes: GGUFSizes {
        // A network that computes every token alone is the feed-forward network.
        let shared = settings.experts == nil ? settings.details.sharedSize : nil
        return GGUFSizes(
            layers: settings.layers, hiddenSize: settings.hiddenSize,
            feedForwardSize: shared ?? settings.feedForwardSize, heads: settings.heads, keyHeads: settings.keyHeads,
            headSize: settings.headSize,
            epsilon: settings.epsilon, latent: settings.latent.map { ($0.plainSize, $0.valueSize) },
            isRecurrent: settings.details.hybrid?.layers, stateGroups: settings.stateSpace?.groups ?? 1,
            hasExperts: settings.experts != nil)
    }

    func describe(in description: inout GGUFDescription) throws {
        let architecture = modelFamily.gguf.written
        try description.requireWindows(settings.windows, period: architecture?.windowPeriod)
        switch settings.feedForward {
        case .gated, .fused:
            guard settings.activation == .silu else { throw description.refusal("its activation isn't SiLU") }
        case .ungated(let isSquared):
            guard isSquared, settings.activation == .relu else {
                throw description.refusal("its activation isn't the squared ReLU")
            }
        }
        guard let architecture else { return }
        if let latent = settings.latent {
            description.addLatentSizes(latent, of: self)
        } else {
            description.addSizes(of: self, rotated: settings.rotary.settings.size)
        }
        if let window = settings.windows.lazy.compactMap({ $0 }).first {
            description.add("attention.sliding_window", .integer(window))
        }
        try description.addRotary(settings.rotary, yarn: architecture.yarn)
        if let experts = settings.experts, let form = architecture.experts {
            try form.describe(experts, in: &description)
        }
        guard architecture.hasRotaryFactors || description.factors == nil else {
            throw description.refusal("its RoPE has the type '\(settings.rotary.settings.kind)'")
        }
        try architecture.details(settings, &description)
    }
}

extension ModelFamily {
    static let llama = ModelFamily(
        name: "llama", constructor: .generator { try Llama(LlamaConfiguration($0, .llama, family: $1)) },
        modules: .llama, tokenTypes: .none,
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["k_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: ["input_layernorm", "post_attention_layernorm", "norm"]),
        gguf: .architecture(.llama))
}

extension LlamaVariant {
    static let llama = LlamaVariant(
        keyHeads: nil, headSize: nil, qkvBias: .configured("attention_bias"),
        outputBias: .configured("attention_bias"), feedForwardBias: .configured("mlp_bias"), queryNorms: .none
    ) { read, layers in
        if let window = read.json["sliding_window"], window != .null {
            throw PEFTError(
                "config.json: 'sliding_window' is \(window.text(indent: nil)), which a llama model doesn't have",
                remedy: "check 'model_type'")
        }
        return Array(repeating: nil, count: layers)
    }
}

extension ModuleNames {
    static let llama = ModuleNames(
        prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"), attention: ["self_attn"],
        feedForward: ["mlp"], unquantized: [])
}

extension GGUFArchitecture {
    static let llama = GGUFArchitecture(
        name: "llama", modelClass: "LlamaForCausalLM", tensors: .llama, pairsNeighbors: true, addsOneToNorms: false
    ) { read, _ in
        [
            "hidden_act": "silu", "attention_bias": .bool(read.hasTensor("blk.0.attn_q.bias")),
            "mlp_bias": .bool(read.hasTensor("blk.0.ffn_up.bias")),
        ]
    }
}

extension GGUFTensorNames {
    /// Llama's names in families whose biases llama.cpp doesn't read.
    static let unbiased = GGUFTensorNames(outer: llama.outer, inner: llama.inner, biases: [])

    static let llama = GGUFTensorNames(
        outer: [("token_embd", "model.embed_tokens"), ("output_norm", "model.norm"), ("output", "lm_head")],
        inner: [
            ("attn_norm", "input_layernorm"), ("attn_q", "self_attn.q_proj"), ("attn_k", "self_attn.k_proj"),
            ("attn_v", "self_attn.v_proj"), ("attn_output", "self_attn.o_proj"),
            ("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm"),
            ("ffn_gate", "mlp.gate_proj"), ("ffn_up", "mlp.up_proj"), ("ffn_down", "mlp.down_proj"),
            ("ffn_norm", "post_attention_layernorm"),
        ])
}
