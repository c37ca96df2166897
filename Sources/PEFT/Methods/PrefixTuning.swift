import LanguageModels
import PEFTSupport
import Torch
import TorchNN

/// Prefix tuning (Li & Liang 2021): learned keys and values prepended in each self-attention, P `[tokens, layers · 2
/// · size]` with size = heads · headSize of the keys. With reparameterization, P = tanh(E Wᵀ + b) Vᵀ + c is computed
/// from embeddings E `[tokens, size]` by an MLP that is discarded after training.
///
/// As in Hugging Face PEFT, an encoder-decoder has prefixes only in the decoder's self-attention. Its file has 2 ·
/// layers vectors per token, of which layer i uses numbers 4i and 4i + 1 (modulo their count) as key and value. This
/// is Hugging Face's indexing, and with an even number of layers pairs of layers share theirs.
public enum PrefixTuning: BuiltInMethod {
    /// Options of ``PrefixTuning``.
    public struct Configuration: BuiltInConfiguration {
        /// The virtual tokens.
        public var tokens = VirtualTokens(stacks: nil)
        /// Whether the prefix is reparameterized by an MLP during training.
        public var hasProjection = false
        /// Hidden size of the MLP; the size of the keys if `nil`.
        public var hiddenSize: Int?

        /// The default options.
        public init() {}

        package func check() throws {
            try tokens.validate()
            guard hiddenSize.map({ $0 >= 1 }) ?? true else {
                throw PEFTError("the hidden size is \(hiddenSize ?? 0)", remedy: "use 1 or more")
            }
        }

        package enum Declaration: ConfigurationDeclaration {
            package static let fields: [ConfigurationField<Configuration>] =
                tokenFields(\.tokens) + [
                    .init(
                        "projection", key: "prefix_projection", .flag,
                        help: "reparameterize the prefix by an MLP during training"
                    ) {
                        .bool($0.hasProjection)
                    } write: {
                        $0.hasProjection = try flag($1)
                    },
                    .init(
                        "hidden-size", key: "encoder_hidden_size", .integer(1...1_000_000),
                        help: "hidden size of the MLP (default: that of the keys)"
                    ) {
                        $0.hiddenSize.map { .integer($0) } ?? .null
                    } write: {
                        $0.hiddenSize = try integer($1)
                    },
                ]
            package static let neutral: [String: [JSON]] = ["modules_to_save": [[]]]
        }
    }

    package enum Implementation: PEFTMethod {
        package typealias Configuration = PrefixTuning.Configuration
        package static let name = "prefix"
        package static let peftType: String? = "PREFIX_TUNING"
        package static let summary = "learned keys and values prepended in every attention layer (Li & Liang 2021)"
        package static let defaultLearningRate = 1e-2
        package static let start = AdapterStart.changed
        package static let isMergeable = false

        package static func label(_ configuration: Configuration) -> String {
            "prefix tuning, \(counted(configuration.tokens.count, "token"))"
                + (configuration.hasProjection ? " (projected)" : "")
        }

        package static func resolved(_ configuration: Configuration, for model: ModelOutline) -> Configuration {
            var configuration = configuration
            configuration.tokens = PrefixLayout.resolved(configuration.tokens, for: model)
            configuration.hiddenSize = configuration.hiddenSize ?? configuration.tokens.size
            return configuration
        }

        package static func plan(_ configuration: Configuration, for model: ModelOutline) throws -> [Attachment] {
            let resolved = resolved(configuration, for: model)
            let layout = try PrefixLayout(resolved.tokens, of: model, method: name)
            let size = layout.size
            let stored = TensorSpec(Prefix.output, layout.shape, isTrained: !resolved.hasProjection)
            return layout.sites.enumerated().map { layer, site in
                let entry = layout.entries[layer]
                var specs = layer == 0 || !resolved.hasProjection ? [stored] : []
                if resolved.hasProjection {
                    specs += (Prefix.shapes(resolved, size: size) + Prefix.shapes(resolved, size: size, of: entry))
                        .map {
                            TensorSpec($0.key, $0.shape, isStored: false)
                        }
                }
                return .keyValues(site.path, specs) { place, context in
                    let prefix = context.shared("prefix") {
                        Prefix(resolved, size: size, layers: layout.layers, context)
                    }
                    prefix.prepare(entry, context)
                    return PrefixAdapter(prefix, entry: entry, heads: place.heads, isFirst: layer == 0)
                }
            }
        }
    }
}

/// Where the vectors of a prefix belong.
struct PrefixLayout {
    /// The attentions that get a prefix, one per layer.
    let sites: [ModelOutline.KeyValueSiteOutline]
    /// Size of the keys of a layer.
    let size: Int
    let layers: Int
    /// `[tokens, 2 · layers · size]`
    let shape: [Int]
    /// For each site, the number of its key among the vectors; its value is the next one.
    let entries: [Int]

    private static func sites(_ model: ModelOutline) -> [ModelOutline.KeyValueSiteOutline] {
        let sites = model.keyValues.filter { $0.kind == .attention }
        return model.architecture == .encoderDecoder ? sites.filter { $0.role == .decoder } : sites
    }

    /// The settings with the sizes of the model's keys filled in.
    static func resolved(_ tokens: VirtualTokens, for model: ModelOutline) -> VirtualTokens {
        let sites = sites(model)
        return tokens.resolved(
            for: model, size: sites.first.map { $0.heads * $0.headSize }, heads: sites.first?.heads,
            layers: sites.count)
    }

    /// - Parameter tokens: settings of ``resolved(_:for:)``.
    /// - Throws: ``PEFTError`` if they don't fit the model.
    init(_ tokens: VirtualTokens, of model: ModelOutline, method name: String) throws {
        sites = Self.sites(model)
        guard let first = sites.first else {
            throw PEFTError(
                "this \(model.family) model has no attention layer that supports prefixes",
                remedy: "use another method than \(name), such as prompt")
        }
        size = first.heads * first.headSize
        let (size, layers) = (size, tokens.layers ?? sites.count)
        guard tokens.size == size, tokens.heads == first.heads,
            sites.allSatisfy({ $0.heads == first.heads && $0.headSize == first.headSize })
        else {
            throw PEFTError(
                "the prefix's keys have size \(tokens.size ?? 0) in \(tokens.heads ?? 0) heads, but this "
                    + "\(model.family) model's have size \(size) in \(first.heads)",
                remedy: "remove token_dim and num_attention_heads, or use the adapter's base model")
        }
        guard layers >= sites.count else {
            throw PEFTError(
                "the prefix has \(layers) layers, but this \(model.family) model has \(sites.count)",
                remedy: "set num_layers to \(sites.count)")
        }
        guard model.architecture != .encoderDecoder || tokens.stacks == 2 else {
            throw PEFTError(
                "num_transformer_submodules is 1, which Hugging Face PEFT can't use for an encoder-decoder's prefix",
                remedy: "remove it")
        }
        self.layers = layers
        shape = [tokens.count, 2 * layers * size]
        let stride = 2 * (tokens.stacks ?? 1)
        entries = sites.indices.map { stride * $0 % (2 * layers) }
    }
}

/// All keys and values of a prefix, shared by the attentions' adapters.
final class Prefix {
    static let output = "prompt_embeddings"
    /// `[tokens, layers · 2 · size]`: the learned prefix, or without values if an MLP computes it.
    let vectors: Parameter
    /// The MLP; its second layer is split by entry, so that no zero gradients are computed for unused entries.
    private(set) var network: [(key: String, parameter: Parameter)] = []
    let hasProjection: Bool
    private let configuration: PrefixTuning.Configuration
    private let size: Int

    /// Shapes of the MLP's first layer with its input embeddings, or of the part of the second layer that computes
    /// the keys and values `entry` and `entry` + 1.
    static func shapes(_ configuration: PrefixTuning.Configuration, size: Int, of entry: Int? = nil)
        -> [(key: String, shape: [Int], fan: Int?)]
    {
        let hidden = configuration.hiddenSize ?? size
        if let entry {
            return [
                ("transform.2.\(entry).weight", [2 * size, hidden], hidden),
                ("transform.2.\(entry).bias", [2 * size], hidden),
            ]
        }
        return [
            ("embedding.weight", [configuration.tokens.count, size], nil),
            ("transform.0.weight", [hidden, size], size), ("transform.0.bias", [hidden], size),
        ]
    }

    init(_ configuration: PrefixTuning.Configuration, size: Int, layers: Int, _ context: AttachmentContext) {
        (self.configuration, self.size) = (configuration, size)
        hasProjection = configuration.hasProjection && !context.isLoading
        let shape = [configuration.tokens.count, 2 * layers * size]
        vectors = Parameter(
            hasProjection || context.isLoading
                ? .zeros(shape, dtype: context.dtype, device: context.device) : context.random(shape, fan: nil))
        if hasProjection { add(Self.shapes(configuration, size: size), context) }
    }

    /// Creates the part of the MLP for an entry, if it doesn't exist.
    func prepare(_ entry: Int, _ context: AttachmentContext) {
        if hasProjection { add(Self.shapes(configuration, size: size, of: entry), context) }
    }

    private func add(_ shapes: [(key: String, shape: [Int], fan: Int?)], _ context: AttachmentContext) {
        for (key, shape, fan) in shapes where parameter(key) == nil {
            network.append((key, Parameter(context.random(shape, fan: fan))))
        }
    }

    private func parameter(_ key: String) -> Parameter? { network.first { $0.key == key }?.parameter }

    /// Key and value `entry` and `entry` + 1, concatenated: `[tokens, 2 · size]`.
    func pair(_ entry: Int) -> Tensor {
        guard hasProjection, let x = parameter("embedding.weight")?.tensor,
            let down = parameter("transform.0.weight")?.tensor,
            let up = parameter("transform.2.\(entry).weight")?.tensor
        else { return vectors.tensor.narrowed(axis: 1, (entry * size)..<((entry + 2) * size)) }
        let hidden = Functions.linear(x, down, bias: parameter("transform.0.bias")?.tensor).tanh()
        return Functions.linear(hidden, up, bias: parameter("transform.2.\(entry).bias")?.tensor)
    }

    /// The contents of the adapter file.
    func stored() -> Tensor {
        guard hasProjection else { return vectors.tensor }
        return withoutGradients {
            let all = vectors.tensor.detached().clone()
            for entry in stride(from: 0, to: all.dim(1) / size, by: 2)
            where parameter("transform.2.\(entry).bias") != nil {
                all.narrowed(axis: 1, (entry * size)..<((entry + 2) * size)).copy(from: pair(entry))
            }
            return all
        }
    }
}

/// One attention's part of a prefix.
final class PrefixAdapter: Module, KeyValueAdapter, AdapterModule {
    private let prefix: Prefix
    private let entry: Int
    private let heads: Int
    private let isFirst: Bool

    init(_ prefix: Prefix, entry: Int, heads: Int, isFirst: Bool) {
        (self.prefix, self.entry, self.heads, self.isFirst) = (prefix, entry, heads, isFirst)
    }

    var adapterParameters: [AdapterParameter] {
        let whole = isFirst ? [AdapterParameter(Prefix.output, prefix.vectors, isTrained: !prefix.hasProjection)] : []
        return whole + prefix.network.map { AdapterParameter($0.key, $0.parameter, isStored: false) }
    }

    func storedTensors() -> [String: Tensor] { isFirst ? [Prefix.output: prefix.stored()] : [:] }

    func keysAndValues() -> (keys: Tensor, values: Tensor) { Self.divided(prefix.pair(entry), heads: heads) }

    /// The halves of `[tokens, 2 · size]` as keys and values `[tokens, heads, headSize]`.
    static func divided(_ pair: Tensor, heads: Int) -> (keys: Tensor, values: Tensor) {
        let all = pair.reshaped(pair.dim(0), 2, heads, -1)
        func part(_ index: Int) -> Tensor {
            all.narrowed(axis: 1, index..<(index + 1)).reshaped(pair.dim(0), heads, -1)
        }
        return (part(0), part(1))
    }
}
