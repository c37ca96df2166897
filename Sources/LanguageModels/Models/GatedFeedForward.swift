import Torch
import TorchNN

/// Gated feed-forward network (Shazeer 2020), as in decoders since Llama: down(f(gate(x)) ⊙ up(x)).
final class GatedFeedForward: Module {
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

    /// `[tokens, size]` -> `[tokens, size]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = Linear.project(x, [gate, up])
        return down(activation.gated(parts[0], parts[1]))
    }
}
