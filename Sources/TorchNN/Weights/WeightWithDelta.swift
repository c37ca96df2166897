import Torch

/// A weight W + s B A that is never materialized, with A `[r, inputs]` and B `[outputs, r]`: the residual of a
/// quantized weight after an initialization has subtracted a low-rank part, without quantizing it again.
package struct WeightWithDelta: LinearWeight {
    /// W, which may be quantized.
    package let base: any LinearWeight
    private let a: Tensor, b: Tensor
    private let scale: Double

    package init(_ base: any LinearWeight, a: Tensor, b: Tensor, scale: Double) {
        (self.base, self.a, self.b, self.scale) = (base, a, b, scale)
    }

    package var outputs: Int { base.outputs }
    package var inputs: Int { base.inputs }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        Functions.loraBranch(base.project(x, bias: bias), x: x, a: a, b: b, scale: scale, dropout: 0, seed: 0)
    }
    package func dense(as type: DType) -> Tensor { base.dense(as: type) + b.to(type).matmul(a.to(type)) * scale }
    package var formatName: String { base.formatName }
    package func replacing(with dense: Tensor) throws -> any LinearWeight { try base.replacing(with: dense) }
    package var parameters: [(key: String, parameter: Parameter)] { base.parameters }
}
