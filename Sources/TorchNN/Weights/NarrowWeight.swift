import Torch

/// A weight stored in 16 bits and upcast tile by tile in matmuls: half the memory of the upcast matrix, with the same
/// results.
///
/// While an adapter covers it with a trained fp32 copy (modules to save), it is dense.
package struct NarrowWeight: LinearWeight {
    /// `[outputs, inputs]`
    package let parameter: Parameter

    package init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    package var outputs: Int { parameter.tensor.dim(0) }
    package var inputs: Int { parameter.tensor.dim(1) }
    private var matrix: StoredMatrix {
        StoredMatrix(.floats, codes: parameter.tensor, outputs: outputs, inputs: inputs)
    }
    private var isWide: Bool { parameter.tensor.dtype.size > 2 }
    private var wide: DenseWeight { DenseWeight(parameter) }
    package var projectionMatrix: Projection.Matrix? { isWide ? .dense(parameter.tensor) : .stored(matrix) }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        isWide ? wide.project(x, bias: bias) : matrix.project(x, bias: bias)
    }
    package func rows(_ ids: Tensor, as type: DType) -> Tensor {
        isWide ? wide.rows(ids, as: type) : matrix.rows(ids, as: type)
    }
    package func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        isWide
            ? wide.crossEntropy(
                hidden: hidden, bias: bias, targets: targets, scale: scale, softcap: softcap,
                labelSmoothing: labelSmoothing)
            : matrix.crossEntropy(
                hidden: hidden, bias: bias, targets: targets, scale: scale, softcap: softcap,
                labelSmoothing: labelSmoothing)
    }
    package func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    package var formatName: String { parameter.tensor.dtype == .float16 ? "fp16" : "bf16" }
    package var precision: WeightPrecision { .half }
    package func replacing(with dense: Tensor) -> any LinearWeight {
        NarrowWeight(dense.to(parameter.tensor.dtype).contiguous())
    }
    package func withOwnParameters() -> any LinearWeight { NarrowWeight(parameter.tensor) }
    package var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}

extension WeightFormat.Family {
    /// bf16, upcast tile by tile in matmuls.
    static let bfloat16 = Self("bf16", "bfloat16", format: .bfloat16)
    static let stored = Self("stored", format: .stored)
}

extension WeightFormat {
    /// 16-bit values as the files store them, upcast tile by tile in matmuls, and others in the compute dtype: the same numbers
    /// as in fp32 with half of its memory.
    package static let stored = WeightFormat(
        "stored", dtype: .float32, includesTransposed: false,
        conversion: Conversion(
            weight: { weight in
                guard let tensor = weight.denseTensor, tensor.dtype.size == 2 else {
                    return DenseWeight(weight.dense(as: .float32))
                }
                return NarrowWeight(tensor)
            },
            vocabulary: { stored, type in
                type.size > 2 && stored.dtype.size == 2 ? NarrowWeight(stored) : nil
            }))

    /// Projections that files store transposed stay as they are: a bf16 weight is stored as it is in memory.
    package static let bfloat16 = WeightFormat(
        "bf16", dtype: .bfloat16, includesTransposed: false,
        conversion: Conversion(
            weight: { NarrowWeight($0.dense(as: .bfloat16).contiguous()) },
            vocabulary: { $1.size > 2 ? NarrowWeight($0.to(.bfloat16)) : nil }))
}
