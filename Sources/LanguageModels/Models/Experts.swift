import Torch
import TorchNN

/// The experts of a layer (Shazeer et al. 2017): feed-forward networks whose matrices are stacked, as in transformers.
final class Experts: Module {
    /// Gate and up projections, `[experts, 2 · hidden, size]`; without gates `[experts, hidden, size]`.
    @ModuleInfo var gateUp: ExpertLinear
    /// `[experts, size, hidden]`
    @ModuleInfo(key: "down_proj") var down: ExpertLinear
    private let hidden: Int
    private let activation: Activation

    private let gate: ClampedGate?
    private let form: Form
    private let biases: (gateUp: Parameter, down: Parameter)?
    /// Whether the weights multiply the experts' inputs rather than their outputs (Llama 4).
    private let scalesInputs: Bool

    enum Form {
        case gated
        /// down(f(up(x))); f² in place of f if it is squared.
        case ungated(isSquared: Bool)

        var isGated: Bool { if case .gated = self { true } else { false } }
        /// Name of the first projection.
        var name: String { isGated ? "gate_up_proj" : "up_proj" }
    }

    /// - Parameters:
    ///   - isTransposed: whether files have the matrices as `[experts, inputs, outputs]`.
    ///   - gate: the gate of experts with biases, in place of the activation.
    init(
        _ count: Int, size: Int, hidden: Int, activation: Activation, isTransposed: Bool = false,
        scalesInputs: Bool = false, gate: ClampedGate? = nil, form: Form = .gated
    ) {
        (self.hidden, self.activation, self.scalesInputs, self.gate) = (hidden, activation, scalesInputs, gate)
        self.form = form
        func bias(_ size: Int) -> Parameter { Parameter(.empty([count, size], device: .meta)) }
        biases = gate == nil ? nil : (bias(2 * hidden), bias(size))
        super.init()
        _gateUp = ModuleInfo(
            wrappedValue: ExpertLinear(
                size, form.isGated ? 2 * hidden : hidden, experts: count, isTransposed: isTransposed),
            key: form.name)
        _down.wrappedValue = ExpertLinear(hidden, size, experts: count, isTransposed: isTransposed)
    }

    /// Each token's experts on x `[tokens, size]`, summed with the weights `[tokens, choices]` -> `[tokens, size]`.
    func callAsFunction(_ x: Tensor, weights: Tensor, routing: ExpertRouting) -> Tensor {
        var (input, factors) = (x, weights)
        if scalesInputs {
            let ordered = weights.reshaped(-1, 1).selecting(routing.order)
            input = x.selecting(routing.tokens) * ordered
            factors = .ones(weights.shape, dtype: weights.dtype, device: weights.device)
        }
        let both = gateUp(
            input, bias: biases?.gateUp.tensor, routing: routing, isOrdered: scalesInputs)
        let gated: Tensor
        if let gate {
            gated = gate(both)
        } else if case .ungated(let isSquared) = form {
            let y = activation(both)
            gated = isSquared ? y.squared() : y
        } else {
            let parts = both.split(axis: -1, [hidden, hidden])
            gated = activation.gated(parts[0], parts[1])
        }
        let y = down(gated, bias: biases?.down.tensor, routing: routing, isOrdered: true)
        return Functions.expertSum(y, weights: factors, routing: routing)
    }

    override func ownParameters() -> [(key: String, parameter: Parameter)] {
        var result: [(key: String, parameter: Parameter)] = []
        for (name, weight) in [(form.name, gateUp.weight), ("down_proj", down.weight)] where weight.areSiblings {
            for item in weight.parameters { result.append((name + item.key, item.parameter)) }
        }
        if let biases {
            result.append(("gate_up_proj_bias", biases.gateUp))
            result.append(("down_proj_bias", biases.down))
        }
        return result
    }
}

/// The gate of gpt-oss (OpenAI 2025): (u + 1) · g · σ(α g) with the gate g ≤ c and −c ≤ u ≤ c, which are neighbors in the
/// projection's output.
struct ClampedGate: Sendable, Equatable {
    /// α.
    let slope: Double
    /// c.
    let limit: Double

    static let usual = ClampedGate(slope: 1.702, limit: 7)

    /// x `[rows, 2 · hidden]` -> `[rows, hidden]`.
    func callAsFunction(_ x: Tensor) -> Tensor {
        let parts = x.reshaped(x.dim(0), x.dim(1) / 2, 2).split(axis: 2, [1, 1])
        let gate = parts[0].reshaped(x.dim(0), x.dim(1) / 2).atMost(limit)
        let up = parts[1].reshaped(x.dim(0), x.dim(1) / 2).atLeast(-limit).atMost(limit)
        return (up + 1) * (gate * (gate * slope).sigmoid())
    }
}
