import PEFTSupport
import Torch
import TorchNN

/// The text model of Gemma 4 (Google 2026). As in Gemma 3, there are norms before and after each sublayer and sliding windows in
/// most layers. Full-attention layers have heads of another size, later layers may attend to keys and values of earlier
/// ones (``SharedKeyAttention``), each layer may have an embedding of its own (``PerLayerEmbeddings``) and experts beside its
/// feed-forward network, and its output is scaled.
package final class Gemma4: Module, CausalModel {
    let settings: Gemma4Configuration
    package var folderSettings = FolderSettings()
    @ModuleInfo var embedding: Embedding
    @ModuleInfo var inputSite: InputSite
    @ModuleInfo var perLayer: PerLayerEmbeddings?
    @ModuleInfo var layers: [Gemma4Block]
    @ModuleInfo var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: Gemma4Configuration) {
        self.settings = settings
        let prefix = settings.family.modules.prefix
        _embedding = ModuleInfo(
            wrappedValue: Embedding(settings.vocabularySize, settings.hiddenSize), key: "\(prefix).embed_tokens")
        // Hugging Face PEFT can't prepend virtual tokens to a model with per-layer embeddings either.
        _inputSite = ModuleInfo(
            wrappedValue: InputSite(.decoder, size: settings.hiddenSize, takesPrompts: settings.perLayer == nil),
            key: "\(prefix).input_site")
        _perLayer = ModuleInfo(wrappedValue: settings.perLayer.map { PerLayerEmbeddings($0) }, key: prefix)
        _layers = ModuleInfo(
            wrappedValue: (0..<settings.layers).map { Gemma4Block(settings, layer: $0) }, key: "\(prefix).layers")
        _norm = ModuleInfo(wrappedValue: settings.norm(), key: "\(prefix).norm")
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.compactMap(\.attention.prefix) }
    package var embeddingScale: Double { Double(settings.hiddenSize).squareRoot() }
    var outputSoftcap: Double? { settings.outputSoftcap }
    var hasFixedVocabulary: Bool { settings.perLayer != nil }
    package var buffers: Set<String> {
        Set(layers.indices.map { "\(modelFamily.modules.prefix).layers.\($0).\(Gemma4Block.scalarName)" })
    }
    package func isIgnorable(_ name: String) -> Bool {
        modelFamily.modules.otherPart(name) != nil
            || modelFamily.modules.isOfSharedKeys(name, sources: settings.sources)
    }

    func embed(_ ids: Tensor) -> Tensor { embedding(ids) * embeddingScale }

    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        context.sharedLayers = Set(settings.sources.compactMap { $0 })
        return context.invoked {
            let vectors = perLayer?(x, context)
            return norm(
                through(layers, x, context) { layer, x, context in layer(x, context, vectors?[layer.index]) })
        }
    }
}

final class Gemma4Block: Module, StackedLayer {
    static let scalarName = "layer_scalar"

    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo(key: "self_attn") var attention: SharedKeyAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "post_attention_layernorm") var attentionOutputNorm: RMSNorm
    @ModuleInfo(key: "pre_feedforward_layernorm") var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: GatedFeedForward
    @ModuleInfo(key: "") var experts: Gemma4Experts?
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite
    @ModuleInfo(key: "post_feedforward_layernorm") var feedForwardOutputNorm: RMSNorm
    @ModuleInfo(key: "") var perLayerGate: PerLayerGate?
    /// Factor of the output, `[1]`: a buffer, which isn't trained.
    private let scalar = Parameter(.empty([1], device: .meta))
    let index: Int

    init(_ settings: Gemma4Configuration, layer: Int) {
        index = layer
        super.init()
        _attentionNorm.wrappedValue = settings.norm()
        _attention.wrappedValue = settings.attention(ofLayer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _attentionOutputNorm.wrappedValue = settings.norm()
        _feedForwardNorm.wrappedValue = settings.norm()
        let isDouble = settings.hasDoubleWidth && settings.sources[layer] != nil
        _feedForward.wrappedValue = GatedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSize * (isDouble ? 2 : 1),
            activation: settings.activation)
        _experts.wrappedValue = settings.experts.map { Gemma4Experts($0, settings) }
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
        _feedForwardOutputNorm.wrappedValue = settings.norm()
        _perLayerGate.wrappedValue = settings.perLayer.map { PerLayerGate($0, activation: settings.activation) }
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] { [(Self.scalarName, scalar)] }

    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    /// - Parameter vectors: the layer's embeddings of all tokens, `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext, _ vectors: Tensor?) -> Tensor {
        var input = attentionNorm(x)
        let mixed = attention(input, context)
        input = context.selected(input)
        var x = context.selected(x) + attentionOutputNorm(attentionOutput(mixed, input: input))
        input = feedForwardNorm(x)
        let fed = feedForward(input)
        let output = feedForwardOutput(experts.map { $0(x, dense: fed) } ?? fed, input: input)
        x = x + feedForwardOutputNorm(output)
        if let perLayerGate, let vectors { x = x + perLayerGate(x, context.selected(vectors)) }
        return x * scalar.tensor.detached().to(x.dtype)
    }
}

/// The experts beside the feed-forward network of a Gemma 4 layer.
final class Gemma4Experts: Module {
    struct Settings: Sendable {
        var count: Int
        /// Number of experts per token.
        var choices: Int
        var feedForwardSize: Int
    }

    @ModuleInfo var router: Gemma4Router
    @ModuleInfo var experts: Experts
    @ModuleInfo(key: "post_feedforward_layernorm_1") var denseNorm: RMSNorm
    @ModuleInfo(key: "pre_feedforward_layernorm_2") var inputNorm: RMSNorm
    @ModuleInfo(key: "post_feedforward_layernorm_2") var outputNorm: RMSNorm
    private let count: Int

    init(_ settings: Settings, _ model: Gemma4Configuration) {
        count = settings.count
        _router.wrappedValue = Gemma4Router(settings, size: model.hiddenSize, epsilon: model.epsilon)
        _experts.wrappedValue = Experts(
            settings.count, size: model.hiddenSize, hidden: settings.feedForwardSize, activation: model.activation)
        _denseNorm.wrappedValue = model.norm()
        _inputNorm.wrappedValue = model.norm()
        _outputNorm.wrappedValue = model.norm()
    }

    /// The normalized outputs of the dense network and of the experts on x `[tokens, hiddenSize]`, summed.
    func callAsFunction(_ x: Tensor, dense: Tensor) -> Tensor {
        let (chosen, weights) = router(x)
        let y = experts(inputNorm(x), weights: weights, routing: ExpertRouting(chosen, experts: count))
        return denseNorm(dense) + outputNorm(y)
    }
}

/// Chooses the experts of each token by a projection of the normalized and scaled token. The weights are their probabilities
/// divided by their sum, times a factor of each expert.
final class Gemma4Router: Module {
    @ModuleInfo(key: "proj") var projection: Linear
    @ParameterInfo var scale: Tensor
    @ParameterInfo var expertScale: Tensor
    private let choices: Int
    private let epsilon: Double

    init(_ settings: Gemma4Experts.Settings, size: Int, epsilon: Double) {
        (choices, self.epsilon) = (settings.choices, epsilon)
        _scale = ParameterInfo(wrappedValue: .empty([size], device: .meta))
        _expertScale = ParameterInfo(
            wrappedValue: .empty([settings.count], device: .meta), key: "per_expert_scale")
        super.init()
        _projection.wrappedValue = Linear(size, settings.count, bias: false)
    }

    /// x `[tokens, size]` -> the chosen experts `[tokens, choices]` (int64) and their weights.
    func callAsFunction(_ x: Tensor) -> (chosen: Tensor, weights: Tensor) {
        let size = Double(x.dim(-1))
        let input = Functions.rmsNorm(x, weight: scale, epsilon: epsilon) * (1 / size.squareRoot())
        let logits = projection(input)
        let scores = logits.dtype == .float64 ? logits : logits.to(.float32)
        let chosen = scores.detached().topK(choices).indices
        // Divided by their sum, the probabilities of the chosen ones are the softmax of their logits.
        let weights = scores.gathering(axis: 1, chosen).softmax()
        let factors = expertScale.selecting(chosen.reshaped(-1)).reshaped(chosen.shape)
        return (chosen, (weights * factors.to(weights.dtype)).to(logits.dtype))
    }
}

extension ModelFamily {
    /// The text model of Gemma 4 (Google 2026).
    static let gemma4 = ModelFamily(
        name: "gemma4_text", constructor: .generator { try Gemma4(Gemma4Configuration($0, family: $1)) },
        modules: .gemma4, tokenTypes: .none,
        // Hugging Face has defaults for the whole model only.
        adapterTargets: AdapterTargets(
            lora: .named(["q_proj", "v_proj"]), adaLoRA: .named(["q_proj", "v_proj"]),
            ia3: .named(["q_proj", "v_proj", "down_proj"]), ia3FeedForward: ["down_proj"],
            norms: [
                "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm",
                "post_feedforward_layernorm", "norm",
            ]),
        gguf: .none)

    /// The text part of Gemma 4 with a vision and an audio tower.
    static let gemma4Multimodal = ModelFamily(
        name: "gemma4",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(
                of: json, types: ["gemma4_text"], isTied: true, hasExperts: true)
            return try Gemma4(Gemma4Configuration(json, text: text, family: family))
        },
        modules: .gemma4Multimodal, tokenTypes: .none, adapterTargets: ModelFamily.gemma4.adapterTargets,
        gguf: .none)
}

extension ModuleNames {
    /// Feed-forward networks, and the projections of per-layer embeddings and of the router.
    private static let feedForwardNames: Set<String> = [
        "mlp", "per_layer_input_gate", "per_layer_projection", "per_layer_model_projection", "router",
    ]

    static let gemma4 = ModuleNames(
        prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"), attention: ["self_attn"],
        feedForward: feedForwardNames, unquantized: [], experts: .stacked)

    static let gemma4Multimodal = textPart(
        besides: ["vision_tower", "embed_vision", "audio_tower", "embed_audio"], olderPrefixes: [],
        feedForward: feedForwardNames, experts: .stacked)
}
