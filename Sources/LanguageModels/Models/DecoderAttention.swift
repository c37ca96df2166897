import Torch
import TorchNN

/// Attention of decoders from GPT-J to StarCoder2: separate or fused projections, RoPE over all or a part of each head
/// or none, and optional norms of queries and keys. Query heads may share key heads (Ainslie et al. 2023).
final class DecoderAttention: Module {
    struct Settings: Sendable {
        var hiddenSize: Int
        var heads: Int
        /// Number of key-value heads.
        var keyHeads: Int
        var headSize: Int
        var projections: Projections
        /// Name of the output projection.
        var output: String
        var hasInputBias = true
        var hasOutputBias = true
        var headNorm: HeadNorm?
        var rotary: RotaryPositions?
        /// Sliding-window size, including the token itself; `nil` for full causal attention.
        var window: Int?
        var dropout = 0.0
    }

    /// Names of the projections of the input.
    enum Projections: Sendable {
        /// `q_proj`, `k_proj` and `v_proj`.
        case separate
        /// One projection, whose outputs are the query heads of the first key head, that key head, its value head, the
        /// query heads of the second key head, and so on.
        case fused(String)
    }

    @ModuleInfo(key: "q_proj") var q: Linear?
    @ModuleInfo(key: "k_proj") var k: Linear?
    @ModuleInfo(key: "v_proj") var v: Linear?
    @ModuleInfo var fused: Linear?
    @ModuleInfo var output: Linear
    @ModuleInfo(key: "q_layernorm") var qNorm: HeadNormalization?
    @ModuleInfo(key: "k_layernorm") var kNorm: HeadNormalization?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: Settings
    private let layer: Int

    init(_ settings: Settings, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        let (heads, keyHeads, size) = (settings.heads, settings.keyHeads, settings.headSize)
        func projection(_ heads: Int) -> Linear {
            Linear(settings.hiddenSize, heads * size, bias: settings.hasInputBias)
        }
        switch settings.projections {
        case .separate:
            _q.wrappedValue = projection(heads)
            _k.wrappedValue = projection(keyHeads)
            _v.wrappedValue = projection(keyHeads)
            _fused.wrappedValue = nil
        case .fused(let name):
            _q.wrappedValue = nil
            _k.wrappedValue = nil
            _v.wrappedValue = nil
            _fused = ModuleInfo(wrappedValue: projection(heads + 2 * keyHeads), key: name)
        }
        _output = ModuleInfo(
            wrappedValue: Linear(heads * size, settings.hiddenSize, bias: settings.hasOutputBias),
            key: settings.output)
        _qNorm.wrappedValue = settings.headNorm.map { HeadNormalization($0, heads: heads, size: size) }
        _kNorm.wrappedValue = settings.headNorm.map { HeadNormalization($0, heads: keyHeads, size: size) }
        _prefix.wrappedValue = KeyValueSite(.attention, role: .decoder, heads: keyHeads, headSize: size)
    }

    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        var (queries, keys, values) = projected(x, context)
        queries = qNorm?(queries) ?? queries
        keys = kNorm?(keys) ?? keys
        if let rotary = settings.rotary {
            (queries, keys) = (context.rotatedQueries(queries, rotary), context.rotated(keys, rotary))
        }
        let mixed = context.attend(
            queries, keys, values, site: prefix, layer: layer, window: settings.window,
            scale: 1 / Double(settings.headSize).squareRoot(), dropout: settings.dropout)
        return output(mixed.reshaped(-1, settings.heads * settings.headSize))
    }

    /// Queries of the selected tokens, keys and values of all, each `[tokens, heads, headSize]`.
    private func projected(_ x: Tensor, _ context: AttentionContext) -> (Tensor, Tensor, Tensor) {
        let (heads, keyHeads, size) = (settings.heads, settings.keyHeads, settings.headSize)
        if let q, let k, let v {
            let all = context.projected(x, q, k, v)
            return (
                all.q.reshaped(-1, heads, size), all.k.reshaped(-1, keyHeads, size),
                all.v.reshaped(-1, keyHeads, size)
            )
        }
        let all = fused?(x) ?? x
        let parts = all.reshaped(-1, keyHeads, heads / keyHeads + 2, size).split(axis: 2, [heads / keyHeads, 1, 1])
        func part(_ x: Tensor, _ heads: Int) -> Tensor { x.reshaped(-1, heads, size).contiguous() }
        return (part(context.selected(parts[0]), heads), part(parts[1], keyHeads), part(parts[2], keyHeads))
    }
}

/// Norms of queries and keys over each head.
struct HeadNorm: Sendable {
    enum Kind: Sendable {
        /// One norm with scale and shift for all heads (Phi).
        case shared
        /// One norm with a scale for each head (StableLM).
        case separate
    }

    let kind: Kind
    let epsilon: Double
}

/// The norm of the queries or the keys.
final class HeadNormalization: Module {
    @ModuleInfo(key: "") var shared: LayerNorm?
    @ModuleInfo(key: "norms") var separate: [LayerNorm]
    private let epsilon: Double

    init(_ norm: HeadNorm, heads: Int, size: Int) {
        epsilon = norm.epsilon
        switch norm.kind {
        case .shared:
            _shared.wrappedValue = LayerNorm(size, epsilon: epsilon)
            _separate.wrappedValue = []
        case .separate:
            _shared.wrappedValue = nil
            _separate.wrappedValue = (0..<heads).map { _ in LayerNorm(size, epsilon: norm.epsilon, hasBias: false) }
        }
    }

    /// x `[tokens, heads, headSize]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        if let shared { return shared(x) }
        // All heads at once, then the scale of each.
        let scales = Tensor.concatenated(separate.compactMap(\.weight).map { $0.unsqueezed(0) })
        return Functions.layerNorm(x, weight: nil, bias: nil, epsilon: epsilon) * scales.to(x.dtype)
    }
}
