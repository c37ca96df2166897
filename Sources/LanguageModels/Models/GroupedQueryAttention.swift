import Torch
import TorchNN

/// Grouped-query attention with RoPE (Ainslie et al. 2023), as in decoders since Llama.
final class GroupedQueryAttention: Module {
    struct Settings {
        var hiddenSize: Int
        var heads: Int
        /// Number of key-value heads.
        var keyHeads: Int
        var headSize: Int
        var hasQKVBias = false
        var hasOutputBias = false
        /// Creates the norm of each query and key head, if the family has one.
        var headNorm: (() -> RMSNorm)?
        /// Scale of the attention scores; headSize^−½ by default.
        var scale: Double?
        var softcap: Double?
        var dropout = 0.0
    }

    @ModuleInfo(key: "q_proj") var q: Linear
    @ModuleInfo(key: "k_proj") var k: Linear
    @ModuleInfo(key: "v_proj") var v: Linear
    @ModuleInfo(key: "o_proj") var o: Linear
    @ModuleInfo(key: "q_norm") var qNorm: RMSNorm?
    @ModuleInfo(key: "k_norm") var kNorm: RMSNorm?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite
    private let settings: Settings
    private let layer: Int
    private let rotary: RotaryPositions
    private let window: Int?

    /// - Parameter window: sliding-window size, including the token itself; `nil` for full causal attention.
    init(_ settings: Settings, layer: Int, rotary: RotaryPositions, window: Int?) {
        (self.settings, self.layer, self.rotary, self.window) = (settings, layer, rotary, window)
        let (size, head) = (settings.hiddenSize, settings.headSize)
        _q.wrappedValue = Linear(size, settings.heads * head, bias: settings.hasQKVBias)
        _k.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _v.wrappedValue = Linear(size, settings.keyHeads * head, bias: settings.hasQKVBias)
        _o.wrappedValue = Linear(settings.heads * head, size, bias: settings.hasOutputBias)
        _qNorm.wrappedValue = settings.headNorm?()
        _kNorm.wrappedValue = settings.headNorm?()
        _prefix.wrappedValue = KeyValueSite(.attention, role: .decoder, heads: settings.keyHeads, headSize: head)
    }

    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.headSize
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, x.dim(-1) / size, size) }
        let all = context.projected(x, q, k, v)
        let queries = split(all.q), keys = split(all.k)
        let mixed = context.attend(
            context.rotatedQueries(qNorm?(queries) ?? queries, rotary), context.rotated(kNorm?(keys) ?? keys, rotary),
            split(all.v), site: prefix, layer: layer, window: window,
            scale: settings.scale ?? 1 / Double(size).squareRoot(), softcap: settings.softcap,
            dropout: settings.dropout)
        return o(mixed.reshaped(-1, settings.heads * size))
    }
}
