import Torch

/// What a projection multiplies by: dense now, quantised forms in files of their own.
public protocol LinearWeight {
    var outputs: Int { get }
    var inputs: Int { get }
    /// x [..., inputs] · Wᵀ → [..., outputs]. Gradients reach `x`, and the weight only if it is trained.
    func project(_ x: Tensor, bias: Tensor?) -> Tensor
    /// The weight as numbers, [outputs, inputs].
    func dense(as type: DType) -> Tensor
    /// A weight of the same kind with these numbers, [outputs, inputs].
    func replacing(with dense: Tensor) throws -> any LinearWeight
    /// What it is to be once its values are there, where files store it otherwise than it is used.
    func loaded() -> any LinearWeight
    /// Whether its tensors are kept in the types they are stored in, whatever the model computes in.
    var isQuantized: Bool { get }
    /// The stored tensors, named below the projection's own name.
    var parameters: [(key: String, parameter: Parameter)] { get }
}

extension LinearWeight {
    public func loaded() -> any LinearWeight { self }
    public var isQuantized: Bool { true }
}

/// A weight stored as it is used, [outputs, inputs].
public struct DenseWeight: LinearWeight {
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    public var outputs: Int { parameter.tensor.dim(0) }
    public var inputs: Int { parameter.tensor.dim(1) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor, bias: bias) }
    public func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    public func replacing(with dense: Tensor) -> any LinearWeight { DenseWeight(dense.to(parameter.tensor.dtype)) }
    public var isQuantized: Bool { false }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
