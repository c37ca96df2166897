import Torch
import TorchNN

/// Attention of Gemma 3n and Gemma 4: queries, keys and values are normalized for each head, and the scores aren't scaled.
/// A layer may use its keys as values, or attend to the keys and values of an earlier layer.
final class SharedKeyAttention: Module {
    struct Settings: Sendable {
        var hiddenSize: Int
        var heads: Int
        /// Number of key-value heads.
        var keyHeads: Int
        var headSize: Int
        var hasBiases: Bool
        /// Whether the key projection's outputs are the values, too.
        var keysAreValues = false
        var epsilon: Double
        var dropout: Double
    }

    @ModuleInfo(key: "q_proj") var q: Linear
    @ModuleInfo(key: "k_proj") var k: Linear?
    @ModuleInfo(key: "v_proj") var v: Linear?
    @ModuleInfo(key: "o_proj") var o: Linear
    @ModuleInfo(key: "q_norm") var qNorm: RMSNorm
    @ModuleInfo(key: "k_norm") var kNorm: RMSNorm?
    @ModuleInfo(key: "prefix_site") var prefix: KeyValueSite?
    private let settings: Settings
    private let layer: Int
    private let rotary: RotaryPositions
    private let window: Int?
    /// The earlier layer to whose keys and values it attends; `nil` for its own.
    private let keySource: Int?

    /// - Parameter window: sliding-window size, including the token itself; `nil` for full causal attention.
    init(_ settings: Settings, layer: Int, source: Int?, rotary: RotaryPositions, window: Int?) {
        (self.settings, self.layer, keySource) = (settings, layer, source)
        (self.rotary, self.window) = (rotary, window)
        let (size, head, biases) = (settings.hiddenSize, settings.headSize, settings.hasBiases)
        let width = settings.keyHeads * head
        _q.wrappedValue = Linear(size, settings.heads * head, bias: biases)
        _k.wrappedValue = source == nil ? Linear(size, width, bias: biases) : nil
        _v.wrappedValue = source == nil && !settings.keysAreValues ? Linear(size, width, bias: biases) : nil
        _o.wrappedValue = Linear(settings.heads * head, size, bias: biases)
        _qNorm.wrappedValue = RMSNorm(head, epsilon: settings.epsilon)
        _kNorm.wrappedValue = source == nil ? RMSNorm(head, epsilon: settings.epsilon) : nil
        // Prefixes would have keys of several sizes, and none for layers without keys.
        _prefix.wrappedValue =
            source == nil
            ? KeyValueSite(
                .attention, role: .decoder, heads: settings.keyHeads, headSize: head, takesPrefixes: false) : nil
    }

    /// `[tokens, hiddenSize]` -> `[selected tokens, hiddenSize]`.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let size = settings.headSize
        func split(_ x: Tensor) -> Tensor { x.reshaped(-1, x.dim(-1) / size, size) }
        func rotated(_ queries: Tensor) -> Tensor { context.rotatedQueries(qNorm(split(queries)), rotary) }
        let mixed: Tensor
        if let k, let kNorm, let prefix {
            let all = context.projected(x, q, others: [k, v].compactMap { $0 })
            let keys = split(all.others[0])
            let values = all.others.count > 1 ? split(all.others[1]) : keys
            mixed = context.attend(
                rotated(all.q), context.rotated(kNorm(keys), rotary), unscaledNorm(values), site: prefix,
                layer: layer, window: window, scale: 1, dropout: settings.dropout)
        } else {
            mixed = context.attend(
                rotated(q(context.selected(x))), toLayer: keySource ?? layer, window: window, scale: 1,
                dropout: settings.dropout)
        }
        return o(mixed.reshaped(-1, settings.heads * size))
    }

    private func unscaledNorm(_ x: Tensor) -> Tensor {
        Functions.rmsNorm(
            x, weight: .ones([settings.headSize], dtype: x.dtype, device: x.device), epsilon: settings.epsilon)
    }
}
