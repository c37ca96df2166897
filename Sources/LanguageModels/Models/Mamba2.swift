import PEFTSupport
import Torch
import TorchNN

/// A Mamba-2 layer (Dao & Gu 2024): a short convolution, a state space computed in fp32, and a gate of its outputs.
final class Mamba2: SelfAttention, RecurrentLayer {
    struct Settings: Sendable {
        var hiddenSize: Int
        var heads: Int
        /// Size of a head.
        var headSize: Int
        /// Number of groups of heads that share what they write and read.
        var groups: Int
        /// Number of states of each value.
        var states: Int
        /// Width of the convolution.
        var width: Int
        /// Activation of the convolution.
        var activation: Activation
        var hasConvolutionBias: Bool
        var hasInputBias: Bool
        var hasOutputBias: Bool
        var norm: Norm? = .afterGate
        var epsilon: Double
        /// Bounds of the step sizes Δ.
        var limits = StepLimits()
        var inputScale = 1.0
        /// Factors of the parts of the projected input: gates, values, what is written, what is read, and step sizes.
        var scales = Scales()

        var valueWidth: Int { heads * headSize }
        var channels: Int { valueWidth + 2 * groups * states }
    }

    /// Where the outputs are normalized, over the heads of each group.
    enum Norm: Sendable {
        case beforeGate, afterGate
    }

    struct Scales: Sendable, Equatable {
        var gates = 1.0
        var values = 1.0
        var writers = 1.0
        var readers = 1.0
        var steps = 1.0
    }

    struct StepLimits: Sendable {
        var lower = 0.0
        var upper: Double?
    }

    @ModuleInfo(key: "in_proj") var input: Linear
    @ModuleInfo(key: "conv1d") var convolution: ShortConvolution
    @ModuleInfo var norm: GroupNorm?
    @ModuleInfo(key: "out_proj") var output: Linear
    /// ln of −a, bias of the step sizes, and factor of the values that are added to the outputs, `[heads]`.
    private let logDecay, stepBias, skip: Parameter
    private let settings: Settings
    private let layer: Int

    init(_ settings: Settings, layer: Int) {
        (self.settings, self.layer) = (settings, layer)
        func ofHeads() -> Parameter { Parameter(.empty([settings.heads], device: .meta)) }
        (logDecay, stepBias, skip) = (ofHeads(), ofHeads(), ofHeads())
        super.init()
        _input.wrappedValue = Linear(
            settings.hiddenSize, settings.valueWidth + settings.channels + settings.heads,
            bias: settings.hasInputBias)
        _convolution.wrappedValue = ShortConvolution(
            settings.channels, width: settings.width, hasBias: settings.hasConvolutionBias)
        _norm.wrappedValue = settings.norm.map { _ in
            GroupNorm(settings.valueWidth, groups: settings.groups, epsilon: settings.epsilon)
        }
        _output.wrappedValue = Linear(settings.valueWidth, settings.hiddenSize, bias: settings.hasOutputBias)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        [("A_log", logDecay), ("dt_bias", stepBias), ("D", skip)]
    }

    package var stateSize: Int {
        settings.valueWidth * settings.states + (settings.width - 1) * settings.channels
    }

    override func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor {
        let (state, keeps) = (context.recurrentState(ofLayer: layer), context.keepsRecurrentStates)
        let sequences = context.sequenceScan()
        let projected = scaled(input(settings.inputScale == 1 ? x : x * settings.inputScale))
        let parts = projected.split(axis: 1, [settings.valueWidth, settings.channels, settings.heads])
        let convolved = convolution(
            parts[1], sequences, before: state?.inputs, keepsInputs: keeps, activation: settings.activation)
        let (outputs, memories) = MixedPrecision.suspended(on: x.device) {
            remembered(convolved.output, parts[2], sequences, state, keeping: context.keptMemories)
        }
        if keeps, let last = convolved.after {
            context.keep(RecurrentState(inputs: last, memories: memories), ofLayer: layer)
        }
        let own = context.selected(outputs.to(x.dtype))
        return output(gated(own, context.selected(parts[0])))
    }

    /// Outputs `[tokens, heads · size]` with their gates.
    private func gated(_ x: Tensor, _ gates: Tensor) -> Tensor {
        if let norm, Functions.hasRowKernel(x) {
            return norm(x, gate: gates, hasGateFirst: settings.norm == .afterGate)
        }
        let gates = Activation.silu(gates.contiguous())
        switch settings.norm {
        case .beforeGate: return (norm?(x) ?? x) * gates
        case .afterGate: return norm?(x * gates) ?? x
        case nil: return x * gates
        }
    }

    private func scaled(_ x: Tensor) -> Tensor {
        guard settings.scales != Scales() else { return x }
        let (scales, states) = (settings.scales, settings.groups * settings.states)
        let parts = [
            (scales.gates, settings.valueWidth), (scales.values, settings.valueWidth), (scales.writers, states),
            (scales.readers, states), (scales.steps, settings.heads),
        ]
        let factors = parts.map { Tensor.full([$1], $0, dtype: x.dtype, device: x.device) }
        return x * Tensor.concatenated(factors)
    }

    /// The state space over convolved inputs `[tokens, channels]` -> `[tokens, heads · size]`.
    private func remembered(
        _ inputs: Tensor, _ steps: Tensor, _ sequences: SequenceScan, _ state: RecurrentState?,
        keeping: Recurrence.Memories
    ) -> (outputs: Tensor, memories: [Tensor]) {
        let type: DType = inputs.dtype == .float64 ? .float64 : .float32
        let (inputs, skip, limits) = (inputs.to(type), skip.tensor.to(type), settings.limits)
        if Recurrence.hasKernel(inputs) {
            let recurrence = Recurrence(
                .stateSpace, keyHeads: settings.groups, heads: settings.heads, keySize: settings.states,
                valueSize: settings.headSize)
            let upper = limits.upper ?? .infinity
            let gates = Recurrence.gates(
                rates: nil, decays: steps, factors: logDecay.tensor, shifts: stepBias.tensor,
                bounds: min(limits.lower, upper)...upper)
            let (outputs, last) = recurrence(
                inputs, rates: gates.rates, decays: gates.decays, skip: skip, offsets: sequences.offsets,
                memories: state?.memories.map { $0.to(type) } ?? [], keeping: keeping)
            return (outputs.reshaped(-1, settings.valueWidth), last)
        }
        var steps = (steps.to(type) + stepBias.tensor.to(type)).softplus()
        if limits.lower > 0 { steps = steps.atLeast(limits.lower) }
        if let upper = limits.upper { steps = steps.atMost(upper) }
        let decays = -logDecay.tensor.to(type).exp()
        let states = settings.groups * settings.states
        let parts = inputs.split(axis: 1, [settings.valueWidth, states, states])
        let values = parts[0].reshaped(-1, settings.heads, settings.headSize)
        func ofGroups(_ x: Tensor) -> Tensor { x.reshaped(-1, settings.groups, settings.states) }
        let scan = StateSpaceScan(
            values: values, writers: ofGroups(parts[1]), readers: ofGroups(parts[2]), steps: steps, decays: decays)
        let memory = state?.memory?.to(type)
        let result: (outputs: Tensor, memory: Tensor?)
        if sequences.areSingle, let memory {
            let (outputs, next) = scan.step(memory)
            result = (outputs, next)
        } else {
            result = scan.scan(sequences.chunks, memory: memory, keepsMemory: keeping != .none)
        }
        let skipped = result.outputs + values * skip.unsqueezed(1)
        return (skipped.reshaped(-1, settings.valueWidth), [result.memory].compactMap { $0 })
    }
}

/// Root-mean-square normalization of each group of values, with a learned scale.
final class GroupNorm: Module {
    @ParameterInfo var weight: Tensor
    private let groups: Int
    private let epsilon: Double

    init(_ size: Int, groups: Int, epsilon: Double) {
        _weight = ParameterInfo(wrappedValue: .empty([size], device: .meta))
        (self.groups, self.epsilon) = (groups, epsilon)
    }

    /// x `[tokens, size]` with a gate, in one pass.
    /// - Parameter hasGateFirst: whether x ⊙ silu(gate) is normalized, rather than x.
    func callAsFunction(_ x: Tensor, gate: Tensor, hasGateFirst: Bool) -> Tensor {
        Functions.gatedNorm(
            x, gate: gate, weight: weight, groups: groups, epsilon: epsilon, hasGateFirst: hasGateFirst)
    }

    /// x `[tokens, size]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        if groups == 1 { return Functions.rmsNorm(x, weight: weight, epsilon: epsilon) }
        let type: DType = x.dtype == .float64 ? .float64 : .float32
        let parts = x.to(type).reshaped(x.dim(0), groups, x.dim(1) / groups)
        let normed = parts * (parts.squared().mean(axes: [-1], keep: true) + epsilon).rsqrt()
        return (normed.reshaped(x.shape) * weight.to(type)).to(x.dtype)
    }
}

extension Mamba2.Settings {
    /// Reads the keys of families whose names begin with `mamba_`.
    ///
    /// - Parameters:
    ///   - innerSize: number of values of all heads.
    ///   - outputBias: key of the output projection's bias.
    /// - Throws: ``PEFTError`` for numbers that don't fit together.
    init(_ read: ConfigurationReader, innerSize: Int, outputBias: String = "mamba_proj_bias") throws {
        hiddenSize = try read.integer("hidden_size", .width, default: 4096)
        heads = try read.integer("mamba_n_heads", .heads, default: 128)
        let isAutomatic = [nil, "auto"].contains(read.json["mamba_d_head"])
        headSize =
            try isAutomatic ? max(1, innerSize / heads) : read.integer("mamba_d_head", .headSize, default: 64)
        guard heads * headSize == innerSize else {
            throw PEFTError(
                "config.json: 'mamba_n_heads' is \(heads) and 'mamba_d_head' \(headSize), but the heads have"
                    + " \(innerSize) values together",
                remedy: "check 'mamba_expand' and the other sizes")
        }
        groups = try read.integer("mamba_n_groups", .heads, default: 1)
        states = try read.integer("mamba_d_state", .headSize, default: 256)
        width = try read.integer("mamba_d_conv", default: 4, in: 1...1_024)
        activation = try read.activation("hidden_act", default: "silu")
        hasConvolutionBias = try read.boolean("mamba_conv_bias", default: true)
        hasInputBias = try read.boolean("mamba_proj_bias", default: false)
        hasOutputBias = try read.boolean(outputBias, default: false)
        epsilon = try read.number("rms_norm_eps", default: 1e-6)
        limits = try Mamba2.StepLimits(read)
        try checkGroups("mamba_n_groups")
    }

    /// - Throws: ``PEFTError`` if the groups don't divide the heads.
    func checkGroups(_ key: String) throws {
        guard heads.isMultiple(of: groups) else {
            throw PEFTError(
                "config.json: '\(key)' is \(groups), which doesn't divide the \(heads) heads",
                remedy: "use a divisor of the number of heads")
        }
    }

    /// The number of values of all heads by `mamba_expand`.
    static func expanded(_ read: ConfigurationReader) throws -> Int {
        try read.integer("mamba_expand", default: 2, in: 1...1_024)
            * read.integer("hidden_size", .width, default: 4096)
    }
}

extension Mamba2.StepLimits {
    /// Reads `time_step_limit`, a list of two numbers, of which the second may be infinite.
    init(_ read: ConfigurationReader, key: String = "time_step_limit") throws {
        guard let value = read.json[key], value != .null else { return }
        let (list, tag) = (value.array ?? [], JSON.object(["__float__": "Infinity"]))
        guard list.count == 2, let first = list[0].double, first >= 0, list[1] == tag || list[1].double != nil else {
            throw PEFTError(
                "config.json: '\(key)' is \(value.text(indent: nil))", remedy: "use a list of two numbers")
        }
        (lower, upper) = (first, list[1].double)
    }
}
