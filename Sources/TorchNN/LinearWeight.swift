import Torch

/// A weight matrix in some format, dense or quantized, as used by projections, embeddings and output layers.
public protocol LinearWeight {
    var outputs: Int { get }
    var inputs: Int { get }
    /// x `[..., inputs]` -> x Wᵀ + bias `[..., outputs]`. Gradients flow to `x`, and to the weight if it is trained.
    func project(_ x: Tensor, bias: Tensor?) -> Tensor
    /// The matrix for fused inference kernels without autograd; `nil` if only ``project(_:bias:)`` supports it.
    var projectionMatrix: Projection.Matrix? { get }
    /// Embedding lookup: `ids` `[...]` (int64) -> `[..., inputs]`, in the weight's own dtype if it is dense, else in
    /// `type`.
    func rows(_ ids: Tensor, as type: DType) -> Tensor
    /// ``Functions/linearCrossEntropy(hidden:weight:targets:scale:softcap:labelSmoothing:)`` with this matrix as the
    /// output layer. Gradients flow to `hidden`, and to the weight if it is trained.
    func crossEntropy(hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double)
        -> Tensor
    /// The dequantized weight, `[outputs, inputs]`.
    func dense(as type: DType) -> Tensor
    /// A weight of the same format with other values `[outputs, inputs]`.
    func replacing(with dense: Tensor) throws -> any LinearWeight
    /// The weight to use once its values are loaded, if files store it in another layout.
    func loaded() -> any LinearWeight
    /// Whether its tensors keep their stored dtypes, whatever dtype the model computes in.
    var isQuantized: Bool { get }
    /// The stored tensors, named relative to the projection.
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

/// A weight whose matmul dequantizes tile by tile.
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

/// A dense weight, `[outputs, inputs]`.
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
