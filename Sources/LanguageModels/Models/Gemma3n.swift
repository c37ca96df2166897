import Foundation
import PEFTSupport
import Torch
import TorchNN

/// The text model of Gemma 3n (Google 2025). The residual stream has several parts, of which each layer computes one and
/// predicts and corrects the others (``AlternatingUpdates``); a low-rank residual runs beside the attention, layers have
/// embeddings of their own (``PerLayerEmbeddings``), and later layers attend to keys and values of earlier ones
/// (``SharedKeyAttention``).
package final class Gemma3n: Module, CausalModel {
    let settings: Gemma3nConfiguration
    package var folderSettings = FolderSettings()
    @ModuleInfo var embedding: Embedding
    @ModuleInfo var inputSite: InputSite
    @ModuleInfo var perLayer: PerLayerEmbeddings
    @ModuleInfo var projections: [Linear]
    @ModuleInfo var layers: [Gemma3nBlock]
    @ModuleInfo var unembedding: [Linear]
    @ModuleInfo var norm: RMSNorm
    /// `nil` if the output layer is tied to the embedding.
    @ModuleInfo(key: "lm_head") var outputProjection: Linear?

    init(_ settings: Gemma3nConfiguration) {
        self.settings = settings
        let prefix = settings.family.modules.prefix
        func projections() -> [Linear] {
            (1..<max(1, settings.streams)).map { _ in
                Linear(settings.hiddenSize, settings.hiddenSize, bias: false)
            }
        }
        _embedding = ModuleInfo(
            wrappedValue: Embedding(settings.vocabularySize, settings.hiddenSize), key: "\(prefix).embed_tokens")
        _inputSite = ModuleInfo(
            wrappedValue: InputSite(.decoder, size: settings.hiddenSize, takesPrompts: false),
            key: "\(prefix).input_site")
        _perLayer = ModuleInfo(wrappedValue: PerLayerEmbeddings(settings.perLayer), key: prefix)
        _projections = ModuleInfo(wrappedValue: projections(), key: "\(prefix).altup_projections")
        _layers = ModuleInfo(
            wrappedValue: (0..<settings.layers).map { Gemma3nBlock(settings, layer: $0) }, key: "\(prefix).layers")
        _unembedding = ModuleInfo(wrappedValue: projections(), key: "\(prefix).altup_unembed_projections")
        _norm = ModuleInfo(wrappedValue: settings.norm(), key: "\(prefix).norm")
        _outputProjection.wrappedValue =
            settings.isTied ? nil : Linear(settings.hiddenSize, settings.vocabularySize, bias: false)
    }

    var prefixSites: [KeyValueSite] { layers.compactMap(\.attention.prefix) }
    package var embeddingScale: Double { Double(settings.hiddenSize).squareRoot() }
    var outputSoftcap: Double? { settings.outputSoftcap }
    package func isIgnorable(_ name: String) -> Bool {
        modelFamily.modules.otherPart(name) != nil
            || modelFamily.modules.isOfSharedKeys(name, sources: settings.sources)
    }

    func embed(_ ids: Tensor) -> Tensor { embedding(ids) * embeddingScale }

    func decode(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        context.sharedLayers = Set(settings.sources.compactMap { $0 })
        return context.invoked { norm(merged(through(x, context))) }
    }

    /// y with the root mean square of x, so that all streams have the same size.
    private func scaled(_ y: Tensor, like x: Tensor) -> Tensor {
        let size = x.squared().mean(axes: [-1], keep: true).sqrt()
        return y * size / y.squared().mean(axes: [-1], keep: true).atLeast(1e-5).sqrt()
    }

    private func stacked(_ streams: [Tensor]) -> Tensor {
        Tensor.concatenated(streams.map { $0.unsqueezed(1) }, axis: 1)
    }

    /// Runs x `[tokens, hiddenSize]` through the layers -> `[selected tokens, streams, hiddenSize]`.
    private func through(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let vectors = perLayer(x, context)
        let streams = stacked([x] + projections.map { scaled($0(x), like: x) })
        return LanguageModels.through(layers, streams, context) { layer, x, context in
            layer(x, context, vectors[layer.index])
        }
    }

    /// The mean of the streams, the others projected: `[tokens, streams, hiddenSize]` -> `[tokens, hiddenSize]`.
    private func merged(_ streams: Tensor) -> Tensor {
        let (tokens, size) = (streams.dim(0), settings.hiddenSize)
        let parts = streams.split(axis: 1, Array(repeating: 1, count: settings.streams)).map {
            $0.reshaped(tokens, size)
        }
        let others = zip(unembedding, parts.dropFirst()).map { scaled($0($1), like: parts[0]) }
        return stacked([parts[0]] + others).mean(axes: [1])
    }
}

final class Gemma3nBlock: Module, StackedLayer {
    @ModuleInfo var altup: AlternatingUpdates
    @ModuleInfo(key: "input_layernorm") var attentionNorm: RMSNorm
    @ModuleInfo var laurel: LowRankResidual
    @ModuleInfo(key: "self_attn") var attention: SharedKeyAttention
    @ModuleInfo(key: "attention_output_site") var attentionOutput: OutputSite
    @ModuleInfo(key: "post_attention_layernorm") var attentionOutputNorm: RMSNorm
    @ModuleInfo(key: "pre_feedforward_layernorm") var feedForwardNorm: RMSNorm
    @ModuleInfo(key: "mlp") var feedForward: SparselyGatedFeedForward
    @ModuleInfo(key: "mlp_output_site") var feedForwardOutput: OutputSite
    @ModuleInfo(key: "post_feedforward_layernorm") var feedForwardOutputNorm: RMSNorm
    @ModuleInfo(key: "") var perLayerGate: PerLayerGate
    let index: Int
    private let streams: Int

    init(_ settings: Gemma3nConfiguration, layer: Int) {
        (index, streams) = (layer, settings.streams)
        _altup.wrappedValue = AlternatingUpdates(settings)
        _attentionNorm.wrappedValue = settings.norm()
        _laurel.wrappedValue = LowRankResidual(
            settings.hiddenSize, rank: settings.residualRank, norm: settings.norm())
        _attention.wrappedValue = settings.attention(ofLayer: layer)
        _attentionOutput.wrappedValue = OutputSite(.attention, size: settings.hiddenSize)
        _attentionOutputNorm.wrappedValue = settings.norm()
        _feedForwardNorm.wrappedValue = settings.norm()
        _feedForward.wrappedValue = SparselyGatedFeedForward(
            settings.hiddenSize, hidden: settings.feedForwardSizes[layer], activation: settings.activation,
            sparsity: settings.sparsities[layer])
        _feedForwardOutput.wrappedValue = OutputSite(.feedForward, size: settings.hiddenSize)
        _feedForwardOutputNorm.wrappedValue = settings.norm()
        _perLayerGate.wrappedValue = PerLayerGate(settings.perLayer, activation: settings.activation)
    }

    /// `[tokens, streams, hiddenSize]` -> `[selected tokens, streams, hiddenSize]`.
    /// - Parameter vectors: the layer's embeddings of all tokens, `[tokens, size]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext, _ vectors: Tensor) -> Tensor {
        var predictions = altup.predictions(x)
        var active = altup.active(predictions)
        var input = attentionNorm(active)
        let mixed = attention(input, context)
        (predictions, active, input) = (
            context.selected(predictions), context.selected(active), context.selected(input)
        )
        let attended = active + attentionOutputNorm(attentionOutput(mixed, input: input))
        let y = (attended + laurel(input)) * 0.5.squareRoot()
        input = feedForwardNorm(y)
        let fed = y + feedForwardOutputNorm(feedForwardOutput(feedForward(input), input: input))
        let corrected = altup.corrected(predictions, active: fed)
        let added = perLayerGate(altup.scaledActive(corrected), context.selected(vectors)).unsqueezed(1)
        guard streams > 1 else { return corrected }
        let parts = corrected.split(axis: 1, [1, streams - 1])
        return Tensor.concatenated([parts[0], parts[1] + added], axis: 1)
    }
}

/// AltUp (Baykal et al. 2023, Alternating Updates for Efficient Transformers): a layer computes one of the streams; the others
/// are predicted from all of them and corrected by what the layer adds to its own prediction.
final class AlternatingUpdates: Module {
    @ParameterInfo var outputScale: Tensor
    @ModuleInfo(key: "correction_coefs") var correction: Linear
    @ModuleInfo(key: "prediction_coefs") var prediction: Linear
    @ModuleInfo(key: "modality_router") var router: Linear
    @ModuleInfo(key: "router_norm") var norm: RMSNorm
    private let (streams, own): (Int, Int)
    private let scalesOutput: Bool

    init(_ settings: Gemma3nConfiguration) {
        (streams, own, scalesOutput) = (settings.streams, settings.activeStream, settings.scalesOutput)
        _outputScale = ParameterInfo(
            wrappedValue: .empty([settings.hiddenSize], device: .meta), key: "correct_output_scale")
        super.init()
        _correction.wrappedValue = Linear(streams, streams, bias: false)
        _prediction.wrappedValue = Linear(streams, streams * streams, bias: false)
        _router.wrappedValue = Linear(settings.hiddenSize, streams, bias: false)
        _norm.wrappedValue = settings.norm()
    }

    /// The stream that the layer computes, `[tokens, size]`, of `[tokens, streams, size]`.
    func active(_ x: Tensor) -> Tensor {
        x.narrowed(axis: 1, own..<own + 1).reshaped(x.dim(0), x.dim(2))
    }

    /// `[tokens, streams]`
    private func modalities(_ x: Tensor) -> Tensor { router(norm(x) * (1 / Double(x.dim(1)))).tanh() }

    /// Every stream and a combination of all, `[tokens, streams, size]`.
    func predictions(_ x: Tensor) -> Tensor {
        let coefficients = prediction(modalities(active(x))).reshaped(x.dim(0), streams, streams)
        return x + coefficients.matmul(x)
    }

    /// The predictions and a multiple of what the layer's output adds to its own.
    /// - Parameter active: the output, `[tokens, size]`.
    func corrected(_ predictions: Tensor, active: Tensor) -> Tensor {
        let innovation = (active - self.active(predictions)).unsqueezed(1)
        return predictions + innovation * (correction(modalities(active)) + 1).unsqueezed(2)
    }

    /// The layer's own stream, scaled.
    func scaledActive(_ x: Tensor) -> Tensor {
        scalesOutput ? active(x) * outputScale.to(x.dtype) : active(x)
    }
}

/// The learned augmented residual of Gemma 3n (LAuReL; Menghani et al. 2024): x + norm(W₂ W₁ x).
final class LowRankResidual: Module {
    @ModuleInfo(key: "linear_left") var left: Linear
    @ModuleInfo(key: "linear_right") var right: Linear
    @ModuleInfo(key: "post_laurel_norm") var norm: RMSNorm

    init(_ size: Int, rank: Int, norm: RMSNorm) {
        _left.wrappedValue = Linear(size, rank, bias: false)
        _right.wrappedValue = Linear(rank, size, bias: false)
        _norm.wrappedValue = norm
    }

    func callAsFunction(_ x: Tensor) -> Tensor { x + norm(right(left(x))) }
}

/// A gated feed-forward network whose gates are mostly zero: each token's are shifted by a quantile of the normal
/// distribution with their mean and deviation, and negative ones are cut off.
final class SparselyGatedFeedForward: FeedForward {
    @ModuleInfo(key: "gate_proj") var gate: Linear
    @ModuleInfo(key: "up_proj") var up: Linear
    @ModuleInfo(key: "down_proj") var down: Linear
    private let activation: Activation
    /// The quantile of the standard normal distribution; `nil` without sparsity.
    private let quantile: Double?

    /// - Parameter sparsity: share of the gates that are zero, below 1.
    init(_ size: Int, hidden: Int, activation: Activation, sparsity: Double) {
        self.activation = activation
        quantile = sparsity > 0 ? Self.quantile(sparsity) : nil
        super.init()
        _gate.wrappedValue = Linear(size, hidden, bias: false)
        _up.wrappedValue = Linear(size, hidden, bias: false)
        _down.wrappedValue = Linear(hidden, size, bias: false)
    }

    override func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = Linear.project(x, [gate, up])
        guard let quantile else { return down(activation.gated(parts[0], parts[1])) }
        let mean = parts[0].mean(axes: [-1], keep: true)
        let centered = parts[0] - mean
        let deviation = centered.squared().mean(axes: [-1], keep: true).sqrt()
        return down(activation.gated((centered - deviation * quantile).atLeast(0), parts[1]))
    }

    /// z with Φ(z) = p for 0 < p < 1, by bisection.
    static func quantile(_ p: Double) -> Double {
        var (low, high) = (-40.0, 40.0)
        for _ in 0..<100 {
            let middle = (low + high) / 2
            if 0.5 * erfc(-middle / 2.0.squareRoot()) < p { low = middle } else { high = middle }
        }
        return (low + high) / 2
    }
}

/// `config.json` of the text model of Gemma 3n.
struct Gemma3nConfiguration: CausalConfiguration {
    let family: ModelFamily
    let vocabularySize: Int
    let hiddenSize: Int
    /// Of each layer.
    let feedForwardSizes: [Int]
    let layers: Int
    let heads: Int
    let keyHeads: Int
    let headSize: Int
    let epsilon: Double
    let isTied: Bool
    let activation: Activation
    let hasBiases: Bool
    let outputSoftcap: Double?
    let attentionDropout: Double
    let endTokens: [Int]
    /// Sliding-window size of each layer; `nil` for full attention.
    let windows: [Int?]
    /// The layer to whose keys and values each layer attends; `nil` for its own.
    let sources: [Int?]
    let perLayer: PerLayerEmbeddings.Settings
    /// Number of streams, and the one that layers compute.
    let streams: Int
    let activeStream: Int
    let scalesOutput: Bool
    let residualRank: Int
    /// Share of the gates that are zero, of each layer.
    let sparsities: [Double]
    /// RoPE of the full-attention layers and of the sliding-window layers.
    let rotary: RotaryPositions
    let localRotary: RotaryPositions
    let json: JSON

    /// - Parameter text: the keys of a multimodal model's text part, in place of `json`'s.
    init(_ json: JSON, text: JSON? = nil, family: ModelFamily) throws {
        let read = ConfigurationReader(json: text ?? json)
        (self.json, self.family) = (json, family)
        vocabularySize = try read.integer("vocab_size", .vocabulary, default: 262_400)
        hiddenSize = try read.integer("hidden_size", .width, default: 2048)
        layers = try read.integer("num_hidden_layers", .layers, default: 35)
        (heads, keyHeads, headSize) = try read.heads(count: 8, keyHeads: 2, headSize: 256)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        isTied = try read.boolean("tie_word_embeddings", default: true)
        activation = try read.activation("hidden_activation", default: "gelu_pytorch_tanh")
        hasBiases = try read.boolean("attention_bias", default: false)
        outputSoftcap = try read.optionalNumber("final_logit_softcapping", default: 30)
        attentionDropout = try read.number("attention_dropout", default: 0)
        endTokens = try read.tokens("eos_token_id", default: [1])
        feedForwardSizes = try Self.sizes(read, layers: layers)
        sparsities = try Self.sparsities(read, layers: layers)
        let window = try read.integer("sliding_window", .length, default: 512)
        windows = try AttentionWindows.read(read, layers: layers, window: window) { !($0 + 1).isMultiple(of: 5) }
        sources = try SharedKeys.sources(read, windows: windows, shared: 15)
        guard
            var perLayer = try PerLayerEmbeddings.Settings(
                read, layers: layers, hiddenSize: hiddenSize, epsilon: epsilon)
        else {
            throw PEFTError(
                "config.json: 'hidden_size_per_layer_input' is 0, but a Gemma 3n has per-layer embeddings",
                remedy: "use a size above 0")
        }
        perLayer.hasFallback = true
        self.perLayer = perLayer
        streams = try read.integer("altup_num_inputs", .heads, default: 4)
        activeStream = try read.integer("altup_active_idx", default: 0, in: 0...streams - 1)
        scalesOutput = try read.boolean("altup_correct_scale", default: true)
        residualRank = try read.integer("laurel_rank", .width, default: 64)
        // A bound of coefficients that training applies in transformers, far above their values.
        if let bound = try read.optionalNumber("altup_coef_clip", default: 120), bound < 10 {
            throw PEFTError(
                "config.json: 'altup_coef_clip' is \(bound), which is not supported", remedy: "use 120 or null")
        }
        (rotary, localRotary) = try (
            RotaryPositions(
                read, headSize: headSize, layers: "full_attention", base: 1_000_000, baseKey: "rope_theta"),
            RotaryPositions(
                read, headSize: headSize, layers: "sliding_attention", base: 10_000, baseKey: "rope_local_base_freq")
        )
    }

    private static func sizes(_ read: ConfigurationReader, layers: Int) throws -> [Int] {
        let key = "intermediate_size"
        guard let list = read.json[key]?.array else {
            return Array(repeating: try read.integer(key, .width, default: 16_384), count: layers)
        }
        let sizes = list.compactMap(\.int).filter { (1...ConfigurationReader.Size.width.rawValue).contains($0) }
        guard sizes.count == layers, list.count == layers else {
            throw PEFTError(
                "config.json: '\(key)' doesn't list a size for each of the \(layers) layers",
                remedy: "use an integer, or a list of as many")
        }
        return sizes
    }

    private static func sparsities(_ read: ConfigurationReader, layers: Int) throws -> [Double] {
        let key = "activation_sparsity_pattern"
        guard let value = read.json[key], value != .null else {
            return (0..<layers).map { layers > 10 && $0 < 10 ? 0.95 : 0 }
        }
        let shares = (value.array ?? []).compactMap(\.double).filter { (0..<1).contains($0) }
        guard shares.count == layers, value.array?.count == layers else {
            throw PEFTError(
                "config.json: '\(key)' doesn't list a share for each of the \(layers) layers",
                remedy: "use a list of numbers from 0 to less than 1")
        }
        return shares
    }

    func norm() -> RMSNorm { RMSNorm(hiddenSize, epsilon: epsilon) }

    func attention(ofLayer layer: Int) -> SharedKeyAttention {
        SharedKeyAttention(
            SharedKeyAttention.Settings(
                hiddenSize: hiddenSize, heads: heads, keyHeads: keyHeads, headSize: headSize, hasBiases: hasBiases,
                epsilon: epsilon, dropout: attentionDropout),
            layer: layer, source: sources[layer], rotary: windows[layer] == nil ? rotary : localRotary,
            window: windows[layer])
    }
}

extension ModelFamily {
    /// The text model of Gemma 3n (Google 2025).
    static let gemma3n = ModelFamily(
        name: "gemma3n_text", constructor: .generator { try Gemma3n(Gemma3nConfiguration($0, family: $1)) },
        modules: .gemma3n, tokenTypes: .none,
        // Hugging Face has no defaults for this family; these are Gemma 4's.
        adapterTargets: ModelFamily.gemma4.adapterTargets, gguf: .none)

    /// The text part of Gemma 3n with a vision and an audio tower.
    static let gemma3nMultimodal = ModelFamily(
        name: "gemma3n",
        constructor: .generator { json, family in
            let text = try MultimodalText.configuration(of: json, types: ["gemma3n_text"], isTied: true)
            return try Gemma3n(Gemma3nConfiguration(json, text: text, family: family))
        },
        modules: .gemma3nMultimodal, tokenTypes: .none, adapterTargets: ModelFamily.gemma4.adapterTargets,
        gguf: .none)
}

extension ModuleNames {
    /// Feed-forward networks, and the projections of per-layer embeddings, AltUp and LAuReL.
    private static let feedForwardNames: Set<String> = [
        "mlp", "per_layer_input_gate", "per_layer_projection", "per_layer_model_projection", "altup", "laurel",
        "altup_projections", "altup_unembed_projections",
    ]

    static let gemma3n = ModuleNames(
        prefix: "model", embedding: "embed_tokens", output: .projection("lm_head"), attention: ["self_attn"],
        feedForward: feedForwardNames, unquantized: [])

    static let gemma3nMultimodal = textPart(
        besides: ["vision_tower", "embed_vision", "audio_tower", "embed_audio"], olderPrefixes: [],
        feedForward: feedForwardNames)
}
