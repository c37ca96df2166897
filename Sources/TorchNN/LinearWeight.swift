import Torch

/// A matrix as a model keeps it, dense here, quantised forms in files of their own: what a projection multiplies by, a
/// table of vectors, an output layer.
public protocol LinearWeight {
    var outputs: Int { get }
    var inputs: Int { get }
    /// x [..., inputs] · Wᵀ → [..., outputs]. Gradients reach `x`, and the weight only if it is trained.
    func project(_ x: Tensor, bias: Tensor?) -> Tensor
    /// The matrix as products without gradients read it, several at once; `nil` where only ``project(_:bias:)`` can.
    var projectionMatrix: Projection.Matrix? { get }
    /// Rows `ids` [...] (int64) → [..., inputs], as a table of vectors gives them: in the type of its numbers where it is
    /// stored as it is used, else in `type`.
    func rows(_ ids: Tensor, as type: DType) -> Tensor
    /// ``Functions/linearCrossEntropy(hidden:weight:targets:scale:softcap:labelSmoothing:)`` with this as the output
    /// layer's matrix. Gradients reach `hidden`, and the weight only if it is trained.
    func crossEntropy(hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double)
        -> Tensor
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
    public var projectionMatrix: Projection.Matrix? { nil }
    public func rows(_ ids: Tensor, as type: DType) -> Tensor { Functions.embedding(dense(as: type), ids) }
    public func crossEntropy(
        hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        Functions.linearCrossEntropy(
            hidden: hidden, weight: dense(as: hidden.dtype), targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    public func loaded() -> any LinearWeight { self }
    public var device: Device { parameters.first?.parameter.tensor.device ?? .cpu }
    public var isQuantized: Bool { true }
}

/// A weight that is multiplied by as it is stored, a tile at a time.
public protocol StoredWeight: LinearWeight {
    var matrix: StoredMatrix { get }
}

extension StoredWeight {
    public var projectionMatrix: Projection.Matrix? { .stored(matrix) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { matrix.project(x, bias: bias) }
    public func rows(_ ids: Tensor, as type: DType) -> Tensor { matrix.rows(ids, as: type) }
    public func crossEntropy(
        hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        matrix.crossEntropy(
            hidden: hidden, targets: targets, scale: scale, softcap: softcap, labelSmoothing: labelSmoothing)
    }
    public func dense(as type: DType) -> Tensor { matrix.dense(as: type) }
}

/// A weight stored as it is used, [outputs, inputs].
public struct DenseWeight: LinearWeight {
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }
    public init(_ parameter: Parameter) { self.parameter = parameter }

    public var outputs: Int { parameter.tensor.dim(0) }
    public var inputs: Int { parameter.tensor.dim(1) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor, bias: bias) }
    public var projectionMatrix: Projection.Matrix? { .dense(parameter.tensor) }
    public func rows(_ ids: Tensor, as type: DType) -> Tensor { Functions.embedding(parameter.tensor, ids) }
    public func crossEntropy(
        hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        Functions.linearCrossEntropy(
            hidden: hidden, weight: parameter.tensor, targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    public func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    public func replacing(with dense: Tensor) -> any LinearWeight { DenseWeight(dense.to(parameter.tensor.dtype)) }
    public var isQuantized: Bool { false }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
