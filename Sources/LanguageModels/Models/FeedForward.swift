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
    func configured(_ read: ConfigurationReader) throws -> (FeedForwardKind, Activation) {
        if case .ungated = self, read.json["hidden_act"]?.string == "relu2" {
            return (.ungated(isSquared: true), .relu)
        }
        return (self, try read.activation("hidden_act", default: "silu"))
    }

    func network(_ size: Int, hidden: Int, bias: Bool, activation: Activation) -> FeedForward {
        switch self {
        case .gated: GatedFeedForward(size, hidden: hidden, bias: bias, activation: activation)
        case .fused: FusedFeedForward(size, hidden: hidden, activation: activation)
        case .ungated(let isSquared):
            UngatedFeedForward(size, hidden: hidden, bias: bias, activation: activation, isSquared: isSquared)
        }
    }
}

/// Gated feed-forward network (Shazeer 2020), as in decoders since Llama: down(f(gate(x)) ⊙ up(x)).
final class GatedFeedForward: FeedForward {
    @ModuleInfo(key: "gate_proj") var gate: Linear
    @ModuleInfo(key: "up_proj") var up: Linear
    @ModuleInfo(key: "down_proj") var down: Linear
    private let activation: Activation

    init(_ size: Int, hidden: Int, bias: Bool = false, activation: Activation) {
        _gate.wrappedValue = Linear(size, hidden, bias: bias)
        _up.wrappedValue = Linear(size, hidden, bias: bias)
        _down.wrappedValue = Linear(hidden, size, bias: bias)
        self.activation = activation
    }

    override func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = Linear.project(x, [gate, up])
        return down(activation.gated(parts[0], parts[1]))
    }
}

/// A gated feed-forward network whose gate and up projections are one (Phi-3, GLM-4).
final class FusedFeedForward: FeedForward {
    /// The fused gate/up projection.
    @ModuleInfo(key: "gate_up_proj") var fused: Linear
    @ModuleInfo(key: "down_proj") var down: Linear
    private let size: Int
    private let activation: Activation

    init(_ size: Int, hidden: Int, activation: Activation) {
        (self.size, self.activation) = (hidden, activation)
        _fused.wrappedValue = Linear(size, 2 * hidden, bias: false)
        _down.wrappedValue = Linear(hidden, size, bias: false)
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
