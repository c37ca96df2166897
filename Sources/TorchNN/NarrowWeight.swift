import Torch

/// A weight stored in 16 bits and upcast tile by tile in matmuls: half the memory of the upcast matrix, with the same
/// results.
///
/// While an adapter covers it with a trained fp32 copy (modules to save), it is dense.
public struct NarrowWeight: LinearWeight {
    /// `[outputs, inputs]`
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    /// Not quantized: it may be saved in any dtype.
    public var isQuantized: Bool { false }
    public var outputs: Int { parameter.tensor.dim(0) }
    public var inputs: Int { parameter.tensor.dim(1) }
    private var matrix: StoredMatrix {
        StoredMatrix(codes: parameter.tensor, outputs: outputs, inputs: inputs)
    }
    private var isWide: Bool { parameter.tensor.dtype.size > 2 }
    private var wide: DenseWeight { DenseWeight(parameter) }
    public var projectionMatrix: Projection.Matrix? { isWide ? .dense(parameter.tensor) : .stored(matrix) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor {
        isWide ? wide.project(x, bias: bias) : matrix.project(x, bias: bias)
    }
    public func rows(_ ids: Tensor, as type: DType) -> Tensor {
        isWide ? wide.rows(ids, as: type) : matrix.rows(ids, as: type)
    }
    public func crossEntropy(
        hidden: Tensor, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        isWide
            ? wide.crossEntropy(
                hidden: hidden, targets: targets, scale: scale, softcap: softcap, labelSmoothing: labelSmoothing)
            : matrix.crossEntropy(
                hidden: hidden, targets: targets, scale: scale, softcap: softcap, labelSmoothing: labelSmoothing)
    }
    public func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    public func replacing(with dense: Tensor) -> any LinearWeight {
        NarrowWeight(dense.to(parameter.tensor.dtype).contiguous())
    }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
