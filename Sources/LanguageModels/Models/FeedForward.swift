import Torch
import TorchNN

/// A decoder's feed-forward network.
class FeedForward: Module {
    /// `[tokens, size]` -> `[tokens, size]`.
    func callAsFunction(_ x: Tensor) -> Tensor { x }
    /// The same in a forward pass.
    func callAsFunction(_ x: Tensor, _ context: AttentionContext) -> Tensor { self(x) }
}

/// How the matrices of a feed-forward network are arranged.
enum FeedForwardKind: Sendable {
    /// down(f(gate(x)) ⊙ up(x)).
    case gated
    /// The same with gate and up as one projection.
    case fused
    /// down(f(up(x))); f² in place of f if it is squared, as the squared ReLU of Primer (So et al. 2021).
    case ungated(isSquared: Bool)

    /// This kind with the activation of a `config.json`: `relu2` is the square of ReLU.
    func configured(
        _ read: ConfigurationReader, key: String = "hidden_act", default fallback: String = "silu"
    ) throws -> (FeedForwardKind, Activation) {
        if case .ungated = self, try read.string(key, default: fallback) == "relu2" {
            return (.ungated(isSquared: true), .relu)
        }
        return (self, try read.activation(key, default: fallback))
    }

    /// - Parameter form: names and factors of a gated network.
    func network(
        _ size: Int, hidden: Int, bias: Bool, activation: Activation, form: GatedFeedForward.Form
    ) -> FeedForward {
        switch self {
        case .gated: GatedFeedForward(size, hidden: hidden, bias: bias, activation: activation, form: form)
        case .fused: FusedFeedForward(size, hidden: hidden, activation: activation)
        case .ungated(let isSquared):
            UngatedFeedForward(size, hidden: hidden, bias: bias, activation: activation, isSquared: isSquared)
        }
    }
}

/// Gated feed-forward network (Shazeer 2020), as in decoders since Llama: down(f(gate(x)) ⊙ up(x)).
final class GatedFeedForward: FeedForward {
    @ModuleInfo var gate: Linear
    @ModuleInfo var up: Linear
    @ModuleInfo var down: Linear
    private let activation: Activation
    private let form: Form

    /// Names in the checkpoint, and factors.
    struct Form: Sendable {
        var gate = "gate_proj"
        var up = "up_proj"
        var down = "down_proj"
        /// Factor of the gate before the activation.
        var gateScale = 1.0
        var outputScale = 1.0
    }

    init(_ size: Int, hidden: Int, bias: Bool = false, activation: Activation, form: Form = Form()) {
        _gate = ModuleInfo(wrappedValue: Linear(size, hidden, bias: bias), key: form.gate)
        _up = ModuleInfo(wrappedValue: Linear(size, hidden, bias: bias), key: form.up)
        _down = ModuleInfo(wrappedValue: Linear(hidden, size, bias: bias), key: form.down)
        (self.activation, self.form) = (activation, form)
    }

    override func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = Linear.project(x, [gate, up])
        let y = down(activation.gated(form.gateScale == 1 ? parts[0] : parts[0] * form.gateScale, parts[1]))
        return form.outputScale == 1 ? y : y * form.outputScale
    }
}

/// A gated feed-forward network whose gate and up projections are one (Phi-3, GLM-4).
final class FusedFeedForward: FeedForward {
    /// The fused gate/up projection.
    @ModuleInfo var fused: Linear
    @ModuleInfo var down: Linear
    private let size: Int
    private let activation: Activation

    /// - Parameter names: names in the checkpoint.
    init(
        _ size: Int, hidden: Int, activation: Activation,
        names: (fused: String, down: String) = ("gate_up_proj", "down_proj")
    ) {
        (self.size, self.activation) = (hidden, activation)
        _fused = ModuleInfo(wrappedValue: Linear(size, 2 * hidden, bias: false), key: names.fused)
        _down = ModuleInfo(wrappedValue: Linear(hidden, size, bias: false), key: names.down)
    }

    /// The parts of the fused projection's output.
    static func parts(hidden: Int) -> [FusedPart] { ["gate", "up"].map { FusedPart(name: $0, size: hidden) } }

    override func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = fused(x).split(axis: -1, [size, size])
        return down(activation.gated(parts[0], parts[1]))
    }
}

/// A feed-forward network without a gate: down(f(up(x))), or f² in place of f.
final class UngatedFeedForward: FeedForward {
    @ModuleInfo(key: "up_proj") var up: Linear
    @ModuleInfo(key: "down_proj") var down: Linear
    private let activation: Activation
    private let isSquared: Bool

    init(_ size: Int, hidden: Int, bias: Bool, activation: Activation, isSquared: Bool) {
        _up.wrappedValue = Linear(size, hidden, bias: bias)
        _down.wrappedValue = Linear(hidden, size, bias: bias)
        (self.activation, self.isSquared) = (activation, isSquared)
    }

    override func callAsFunction(_ x: Tensor) -> Tensor {
        let y = activation(up(x))
        return down(isSquared ? y.squared() : y)
    }
}
