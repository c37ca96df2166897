import Torch

/// A dense weight, `[outputs, inputs]`.
package struct DenseWeight: LinearWeight {
    package let parameter: Parameter

    package init(_ tensor: Tensor) { parameter = Parameter(tensor) }
    package init(_ parameter: Parameter) { self.parameter = parameter }

    package var outputs: Int { parameter.tensor.dim(0) }
    package var inputs: Int { parameter.tensor.dim(1) }
    package var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor, bias: bias) }
    package var projectionMatrix: Projection.Matrix? { .dense(parameter.tensor) }
    package func rows(_ ids: Tensor, as type: DType) -> Tensor { Functions.embedding(parameter.tensor, ids) }
    package func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        Functions.linearCrossEntropy(
            hidden: hidden, weight: parameter.tensor, bias: bias, targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    package func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    package var denseTensor: Tensor? { parameter.tensor }

    package var formatName: String { WeightFormat.name(of: parameter.tensor.dtype) }
    package var precision: WeightPrecision { .full }

    package func replacing(with dense: Tensor) -> any LinearWeight { DenseWeight(dense.to(parameter.tensor.dtype)) }
    package func withOwnParameters() -> any LinearWeight { DenseWeight(parameter.tensor) }
}

extension WeightFormat.Family {
    static let float32 = Self("fp32", "float32", format: .float32)
}

extension WeightFormat {
    /// Weights in the compute dtype.
    package static let float32 = WeightFormat("fp32", dtype: .float32)
}
