import Torch
import TorchNN

/// A decoder's attention to its own tokens.
class SelfAttention: Module {
    /// Where prefixes are attached.
    var prefixSite: KeyValueSite? { nil }
    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor { x }
}

/// Grouped-query attention with RoPE (Ainslie et al. 2023), as in decoders since Llama.
final class GroupedQueryAttention: SelfAttention {
    struct Settings {
        var hiddenSize: Int
        var heads: Int
        /// Number of key-value heads.
        var keyHeads: Int
        var headSize: Int
        var hasQKVBias = false
        var hasOutputBias = false
        var queryNorms = QueryNorms.none
        /// Creates a norm of queries or keys of that size.
        var norm: (Int) -> RMSNorm = { RMSNorm($0, epsilon: 1e-6) }
        /// Scale of the attention scores; headSize^−½ by default.
        var scale: Double?
        var softcap: Double?
        /// Growth of the queries with their position, if the family has it.
        var queryGrowth: QueryGrowth?
        var dropout = 0.0
        /// ε of norms without scales of queries and keys of rotated layers, after RoPE (Llama 4), if the family has them.
        var unscaledNorm: Double?
        /// Whether each head has an attention sink (Xiao et al. 2023): a key without a value.
        var hasSinks = false
        /// Bound c of queries, keys and values, which are clipped to −c … c (Muennighoff et al. 2024).
        var clip: Double?
        /// Whether each head's queries are followed by a gate of its outputs, in one projection (Qiu et al. 2025).
        var hasGate = false
        /// Whether prefixes can be attached.
        var takesPrefixes = true
        /// Factor of the keys.
        var keyScale = 1.0
        var names = Names()
    }

    /// Names in the checkpoint that differ among families.
    struct Names: Sendable {
        var output = "o_proj"
        /// Norms of queries and keys; by default those of their place.
        var norms: (q: String, k: String)?
    }

    @ModuleInfo(key: "q_proj") var q: Linear
    @ModuleInfo(key: "k_proj") var k: Linear
    @ModuleInfo(key: "v_proj") var v: Linear
    @ModuleInfo var o: Linear
    @ModuleInfo var qNorm: RMSNorm?
    @ModuleInfo var kNorm: RMSNorm?
    /// Logits of attention sinks, `[heads]`.
    private let sinks: Parameter?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: Settings
    private let layer: Int
    private let rotary: RotaryPositions?
    private let window: Int?

    /// - Parameters:
    ///   - rotary: `nil` for a layer without positions (NoPE; Kazemnejad et al. 2023).
    ///   - window: sliding-window size, including the token itself; `nil` for full causal attention.
    init(_ settings: Settings, layer: Int, rotary: RotaryPositions?, window: Int?) {
        (self.settings, self.layer, self.rotary, self.window) = (settings, layer, rotary, window)
        sinks = settings.hasSinks ? Parameter(.empty([settings.heads], device: .meta)) : nil
        super.init()
        let (size, head) = (settings.hiddenSize, settings.headSize)
        _q.wrappedValue = Linear(
            size, settings.heads * head * (settings.hasGate ? 2 : 1), bias: settings.hasQKVBias)
        _k.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _v.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _o = ModuleInfo(
            wrappedValue: Linear(settings.heads * head, size, bias: settings.hasOutputBias),
            key: settings.names.output)
        let (sizes, keys) = (settings.normSizes, settings.names.norms ?? settings.queryNorms.keys)
        _qNorm = ModuleInfo(wrappedValue: sizes.map { settings.norm($0.q) }, key: keys.q)
        _kNorm = ModuleInfo(wrappedValue: sizes.map { settings.norm($0.k) }, key: keys.k)
        _prefix.wrappedValue = KeyValueSite(
            .attention, role: .decoder, heads: settings.keyHeads, headSize: head, sinks: sinks,
            takesPrefixes: settings.takesPrefixes)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] { sinks.map { [("sinks", $0)] } ?? [] }

    override var prefixSite: KeyValueSite? { prefix }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (size, norms) = (settings.headSize, settings.queryNorms)
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, x.dim(-1) / size, size) }
        func normed(_ x: Tensor, _ norm: RMSNorm?, _ place: QueryNorms) -> Tensor {
            norms == place ? norm?(x) ?? x : x
        }
        func clipped(_ x: Tensor) -> Tensor { settings.clip.map { x.atLeast(-$0).atMost($0) } ?? x }
        var all = context.projected(x, q, k, v)
        var gate: Tensor?
        if settings.hasGate {
            let parts = all.q.reshaped(-1, settings.heads, 2 * size).split(axis: 2, [size, size])
            all.q = parts[0].reshaped(-1, settings.heads * size)
            gate = parts[1].reshaped(-1, settings.heads * size)
        }
        var queries = normed(split(clipped(normed(all.q, qNorm, .wholeProjection))), qNorm, .eachHead)
        var keys = normed(split(clipped(normed(all.k, kNorm, .wholeProjection))), kNorm, .eachHead)
        if settings.keyScale != 1 { keys = keys * settings.keyScale }
        if let rotary {
            (queries, keys) = (context.rotatedQueries(queries, rotary), context.rotated(keys, rotary))
        }
        queries = normed(queries, qNorm, .eachRotatedHead)
        keys = normed(keys, kNorm, .eachRotatedHead)
        if let epsilon = settings.unscaledNorm, rotary != nil {
            func norm(_ x: Tensor) -> Tensor { x * (x.squared().mean(axes: [-1], keep: true) + epsilon).rsqrt() }
            (queries, keys) = (norm(queries), norm(keys))
        }
        if let growth = settings.queryGrowth, !growth.isWithoutPositions || rotary == nil {
            queries = queries * growth.factors(at: context.positions, dtype: queries.dtype)
        }
        let mixed = context.attend(
            queries, keys, split(clipped(all.v)), site: prefix, layer: layer, window: window,
            scale: settings.scale ?? 1 / Double(size).squareRoot(), softcap: settings.softcap,
            dropout: settings.dropout)
        let outputs = mixed.reshaped(-1, settings.heads * size)
        return o(gate.map { outputs * $0.sigmoid() } ?? outputs)
    }
}

/// Norms of queries and keys.
enum QueryNorms: Sendable {
    case none
    /// Of each head, before RoPE (Qwen3, Gemma 3).
    case eachHead
    /// Of each head, after RoPE (Hunyuan).
    case eachRotatedHead
    /// Of all heads together, before RoPE (OLMo 2).
    case wholeProjection

    /// Names in the checkpoint.
    fileprivate var keys: (q: String, k: String) {
        self == .eachRotatedHead ? ("query_layernorm", "key_layernorm") : ("q_norm", "k_norm")
    }
}

extension GroupedQueryAttention.Settings {
    fileprivate var normSizes: (q: Int, k: Int)? {
        switch queryNorms {
        case .none: nil
        case .eachHead, .eachRotatedHead: (headSize, headSize)
        case .wholeProjection: (heads * headSize, keyHeads * headSize)
        }
    }
}

/// Queries that grow with their position p, which keeps attention sharp in long contexts (Llama 4, Ministral 3):
/// q · (1 + β ln(1 + ⌊p / L⌋)) with the context length L of pretraining.
struct QueryGrowth: Sendable {
    /// β.
    let strength: Double
    /// L.
    let length: Int
    /// Whether only layers without RoPE have it, and count positions from 1 (Llama 4).
    var isWithoutPositions = false

    /// Factors for positions `[tokens]` -> `[tokens, 1, 1]`.
    func factors(at positions: Tensor, dtype: DType) -> Tensor {
        let periods = (positions.to(.float64) + (isWithoutPositions ? 1 : 0)) / Double(length)
        // ⌊x⌋ of x ≥ 0: rounded, and 1 less if that is above x.
        let nearest = periods.rounded()
        let whole = nearest - periods.less(than: nearest).to(.float64)
        return ((whole + 1).log() * strength + 1).to(dtype).unsqueezed(1).unsqueezed(2)
    }
}
