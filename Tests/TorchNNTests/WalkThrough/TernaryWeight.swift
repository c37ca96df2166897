import Torch

@testable import TorchNN

/// A weight of −1, 0 and 1 times one scale, the mean absolute value (BitNet b1.58; Ma et al. 2024, eqs. 1–3).
package struct TernaryWeight: LinearWeight {
    /// int8 `[outputs, inputs]`
    package let codes: Parameter
    /// float32 `[]`
    package let scale: Parameter

    /// Quantizes a weight `[outputs, inputs]`.
    package init(rounding weight: Tensor) {
        let values = weight.detached().to(.float32)
        let mean = values.abs().mean().atLeast(1e-5)
        codes = Parameter((values / mean).rounded().atLeast(-1).atMost(1).to(.int8))
        scale = Parameter(mean)
    }

    package var outputs: Int { codes.tensor.dim(0) }
    package var inputs: Int { codes.tensor.dim(1) }
    package var parameters: [(key: String, parameter: Parameter)] { [("weight", codes), ("weight_scale", scale)] }
    package var formatName: String { "ternary" }

    package func dense(as type: DType) -> Tensor { codes.tensor.to(type) * scale.tensor.to(type) }

    package func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        Functions.linear(x, dense(as: x.dtype), bias: bias)
    }

    package func replacing(with dense: Tensor) -> any LinearWeight { TernaryWeight(rounding: dense) }
}

extension WeightFormat.Family {
    static let ternary = Self(
        "ternary", format: WeightFormat("ternary", quantizing: { TernaryWeight(rounding: $0) }))
}
