import Torch

/// A dense weight, `[outputs, inputs]`.
public struct DenseWeight: LinearWeight {
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }
    public init(_ parameter: Parameter) { self.parameter = parameter }

    public var outputs: Int { parameter.tensor.dim(0) }
    public var inputs: Int { parameter.tensor.dim(1) }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor, bias: bias) }
    public var projectionMatrix: Projection.Matrix? { .dense(parameter.tensor) }
    public func rows(_ ids: Tensor, as type: DType) -> Tensor { Functions.embedding(parameter.tensor, ids) }
    public func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        Functions.linearCrossEntropy(
            hidden: hidden, weight: parameter.tensor, bias: bias, targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    public func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    public var denseTensor: Tensor? { parameter.tensor }

    public var formatName: String { WeightFormat.name(of: parameter.tensor.dtype) }
    public var precision: WeightPrecision { .full }

    public func replacing(with dense: Tensor) -> any LinearWeight { DenseWeight(dense.to(parameter.tensor.dtype)) }
    public func withOwnParameters() -> any LinearWeight { DenseWeight(parameter.tensor) }
}

extension WeightFormat.Family {
    static let float32 = Self("fp32", "float32", format: .float32)
}

extension WeightFormat {
    /// Weights in the compute dtype.
    public static let float32 = WeightFormat("fp32", dtype: .float32)
}
