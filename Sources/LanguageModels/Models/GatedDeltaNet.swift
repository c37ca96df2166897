import PEFTSupport
import Torch
import TorchNN

/// A gated delta net (Yang et al. 2024), as in Qwen3-Next: a short convolution of queries, keys and values, the gated delta
/// rule in fp32, and a gated norm of each head's outputs.
final class GatedDeltaNet: SelfAttention, RecurrentLayer {
    struct Settings: Sendable {
        let hiddenSize: Int
        /// Numbers of heads of queries and keys, and of values.
        let keyHeads, heads: Int
        let keySize, valueSize: Int
        /// Width of the convolution.
        let width: Int
        let activation: Activation
        let epsilon: Double
        /// Whether two projections have all parts of a key head beside each other (Qwen3-Next), rather than one for each part.
        let isGrouped: Bool

        var recurrence: Recurrence {
            Recurrence(.gatedDelta, keyHeads: keyHeads, heads: heads, keySize: keySize, valueSize: valueSize)
        }
        var valueWidth: Int { heads * valueSize }
        var channels: Int { recurrence.width }
    }

    @ModuleInfo(key: "in_proj_qkv") var qkv: Linear?
    @ModuleInfo(key: "in_proj_z") var gate: Linear?
    @ModuleInfo(key: "in_proj_b") var rate: Linear?
    @ModuleInfo(key: "in_proj_a") var decay: Linear?
    @ModuleInfo(key: "in_proj_qkvz") var qkvz: Linear?
    @ModuleInfo(key: "in_proj_ba") var rateDecay: Linear?
    @ModuleInfo(key: "conv1d") var convolution: ShortConvolution
    @ModuleInfo var norm: RMSNorm
    @ModuleInfo(key: "out_proj") var output: Linear
    /// ln of the decay's factor, and its bias, `[heads]`.
    private let logDecay, decayBias: Parameter
    private let settings: Settings
    private let layer: Int

    init(_ settings: Settings, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        logDecay = Parameter(.empty([settings.heads], device: .meta))
        decayBias = Parameter(.empty([settings.heads], device: .meta))
        super.init()
        func projection(_ size: Int, _ isPresent: Bool) -> Linear? {
            isPresent ? Linear(settings.hiddenSize, size, bias: false) : nil
        }
        let isGrouped = settings.isGrouped
        _qkv.wrappedValue = projection(settings.channels, !isGrouped)
        _gate.wrappedValue = projection(settings.valueWidth, !isGrouped)
        _rate.wrappedValue = projection(settings.heads, !isGrouped)
        _decay.wrappedValue = projection(settings.heads, !isGrouped)
        _qkvz.wrappedValue = projection(settings.channels + settings.valueWidth, isGrouped)
        _rateDecay.wrappedValue = projection(2 * settings.heads, isGrouped)
        _convolution.wrappedValue = ShortConvolution(settings.channels, width: settings.width)
        _norm.wrappedValue = RMSNorm(settings.valueSize, epsilon: settings.epsilon)
        _output.wrappedValue = Linear(settings.valueWidth, settings.hiddenSize, bias: false)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [("A_log", logDecay), ("dt_bias", decayBias)]
    }

    package var stateSize: Int {
        settings.heads * settings.keySize * settings.valueSize + (settings.width - 1) * settings.channels
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (inputs, gates, rates, decays) = projected(x, context)
        let (state, keeps) = (context.recurrentState(ofLayer: layer), context.keepsRecurrentStates)
        let sequences = context.sequenceScan()
        let convolved = convolution(
            inputs, sequences, before: state?.inputs, keepsInputs: keeps, activation: settings.activation)
        let (outputs, memories) = MixedPrecision.suspended(on: x.device) {
            remembered(
                convolved.output, rates, decays, sequences, state, keeping: context.keptMemories)
        }
        if keeps, let last = convolved.after {
            context.keep(RecurrentState(inputs: last, memories: memories), ofLayer: layer)
        }
        let own = context.selected(outputs.to(x.dtype))
        return output(gated(own, gates).to(x.dtype).reshaped(-1, settings.valueWidth))
    }

    /// Normalized outputs `[tokens, heads, value size]` with their gates.
    private func gated(_ x: Tensor, _ gates: Tensor) -> Tensor {
        guard Functions.hasRowKernel(x) else {
            return norm(x) * Activation.silu(gates.to(gates.dtype == .float64 ? .float64 : .float32))
        }
        return Functions.gatedNorm(
            x.reshaped(-1, settings.valueWidth), gate: gates.reshaped(-1, settings.valueWidth), weight: norm.weight,
            groups: settings.heads, epsilon: norm.epsilon, hasGateFirst: false)
    }

    /// The gated delta rule over convolved inputs `[tokens, channels]` -> `[tokens, heads, value size]`.
    private func remembered(
        _ inputs: Tensor, _ rates: Tensor, _ decays: Tensor, _ sequences: SequenceScan, _ state: RecurrentState?,
        keeping: Recurrence.Memories
    ) -> (outputs: Tensor, memories: [Tensor]) {
        let type: DType = inputs.dtype == .float64 ? .float64 : .float32
        let (inputs, recurrence) = (inputs.to(type), settings.recurrence)
        if Recurrence.hasKernel(inputs) {
            let gates = Recurrence.gates(
                rates: rates, decays: decays, factors: logDecay.tensor, shifts: decayBias.tensor,
                bounds: 0...Double.infinity)
            return recurrence(
                inputs, rates: gates.rates, decays: gates.decays, offsets: sequences.offsets,
                memories: state?.memories.map { $0.to(type) } ?? [], keeping: keeping)
        }
        let factors = logDecay.tensor.to(type).exp()
        let rule = GatedDeltaRule(
            inputs, recurrence, rates: rates.sigmoid().to(type),
            decays: -((decays.to(type) + decayBias.tensor.to(type)).softplus() * factors))
        let memory = state?.memory?.to(type)
        guard sequences.areSingle, let memory else {
            let (outputs, last) = rule.scan(sequences.chunks, memory: memory, keepsMemory: keeping != .none)
            return (outputs, [last].compactMap { $0 })
        }
        let (outputs, next) = rule.step(memory)
        return (outputs, [next])
    }

    /// Inputs of the convolution `[tokens, channels]`, gates of the selected tokens `[tokens, heads, value size]`, and what
    /// rates and decays are computed from, `[tokens, heads]`.
    private func projected(_ x: Tensor, _ context: AttentionContext) -> (Tensor, Tensor, Tensor, Tensor) {
        let (heads, keyHeads, valueSize) = (settings.heads, settings.keyHeads, settings.valueSize)
        if let qkvz, let rateDecay {
            let share = heads / keyHeads
            let all = Linear.project(x, [qkvz, rateDecay])
            let parts = all[0].reshaped(x.dim(0), keyHeads, -1).split(
                axis: 2, [settings.keySize, settings.keySize, share * valueSize, share * valueSize])
            let others = all[1].reshaped(x.dim(0), keyHeads, 2 * share).split(axis: 2, [share, share])
            let inputs = parts[0..<3].map { $0.reshaped(x.dim(0), -1) }
            return (
                Tensor.concatenated(Array(inputs), axis: 1),
                context.selected(parts[3].reshaped(x.dim(0), heads, valueSize)),
                others[0].reshaped(x.dim(0), heads), others[1].reshaped(x.dim(0), heads)
            )
        }
        guard let qkv, let gate, let rate, let decay else { return (x, x, x, x) }
        let own = context.selected(x)
        let all = Linear.project(x, own === x ? [qkv, rate, decay, gate] : [qkv, rate, decay])
        let gates = own === x ? all[3] : gate(own)
        return (all[0], gates.reshaped(-1, heads, valueSize), all[1], all[2])
    }
}

extension HybridLayers {
    /// The gated delta nets of Qwen3-Next and Qwen3.5.
    /// - Throws: ``PEFTError`` for numbers that don't fit together and an unknown type of layer.
    static func deltaNets(_ read: ConfigurationReader, layers: Int, isGrouped: Bool) throws -> HybridLayers {
        let keyHeads = try read.integer("linear_num_key_heads", .heads, default: 16)
        let heads = try read.integer("linear_num_value_heads", .heads, default: 32)
        guard heads.isMultiple(of: keyHeads) else {
            throw PEFTError(
                "config.json: 'linear_num_value_heads' is \(heads), but 'linear_num_key_heads' is \(keyHeads)",
                remedy: "make the number of value heads a multiple of that of key heads")
        }
        let settings = GatedDeltaNet.Settings(
            hiddenSize: try read.integer("hidden_size", .width, default: 4096), keyHeads: keyHeads, heads: heads,
            keySize: try read.integer("linear_key_head_dim", .headSize, default: 128),
            valueSize: try read.integer("linear_value_head_dim", .headSize, default: 128),
            width: try read.integer("linear_conv_kernel_dim", default: 4, in: 1...1_024),
            activation: try read.activation("hidden_act", default: "silu"),
            epsilon: try read.number("rms_norm_eps", default: 1e-6), isGrouped: isGrouped)
        let types = try types(read, layers: layers, allowed: ["linear_attention", "full_attention"])
        let interval = try types == nil ? read.integer("full_attention_interval", .layers, default: 4) : 1
        return HybridLayers(
            mixer: .deltaNet(settings),
            layers: types.map { $0.map { $0 == "linear_attention" } }
                ?? (0..<layers).map { !($0 + 1).isMultiple(of: interval) })
    }
}
