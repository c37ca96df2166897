import Torch

/// A projection y = x Wᵀ + b with an ordered list of adapters folded over it.
public final class Linear: Module {
    public var weight: any LinearWeight
    public let bias: Parameter?
    /// The first sees the bare projection, each further one sees those before it: forward order is merge order.
    public var adapters: [any LinearAdapter] = []

    public var inputs: Int { weight.inputs }
    public var outputs: Int { weight.outputs }

    public init(_ inputs: Int, _ outputs: Int, bias: Bool = true, device: Device = .meta) {
        weight = DenseWeight(.empty([outputs, inputs], device: device))
        self.bias = bias ? Parameter(.empty([outputs], device: device)) : nil
    }

    public override func ownParameters() -> [(key: String, parameter: Parameter)] {
        weight.parameters + (bias.map { [("bias", $0)] } ?? [])
    }

    /// [..., inputs] → [..., outputs]
    public func callAsFunction(_ x: Tensor) -> Tensor {
        BaseProjection(linear: self, adapters: adapters[...])(x)
    }
}

/// A projection together with the adapters beneath a certain one.
public struct BaseProjection {
    let linear: Linear
    let adapters: ArraySlice<any LinearAdapter>

    public var weight: any LinearWeight { linear.weight }
    public var bias: Tensor? { linear.bias?.tensor }

    public func callAsFunction(_ x: Tensor) -> Tensor {
        guard let top = adapters.last else { return weight.project(x, bias: bias) }
        return top(x, base: BaseProjection(linear: linear, adapters: adapters.dropLast()))
    }
}

/// Something that changes what a projection computes.
public protocol LinearAdapter: Module {
    /// The projection's new output for x [..., inputs]; `base` computes what lies beneath.
    func callAsFunction(_ x: Tensor, base: BaseProjection) -> Tensor
    /// The weight [outputs, inputs] that alone does what `weight` and this adapter do together.
    func merged(into weight: Tensor) throws -> Tensor
}
