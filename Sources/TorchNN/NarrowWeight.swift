import Torch

/// A weight that stays in the 16 bits it is stored in and is widened tile by tile where it is multiplied by: half the
/// memory, with the numbers of the widened matrix.
public struct NarrowWeight: LinearWeight {
    /// [outputs, inputs]
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    /// It may be written in any type.
    public var isQuantized: Bool { false }
    public var outputs: Int { parameter.tensor.dim(0) }
    public var inputs: Int { parameter.tensor.dim(1) }
    private var matrix: StoredMatrix {
        StoredMatrix(codes: parameter.tensor, outputs: outputs, inputs: inputs)
    }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { matrix.project(x, bias: bias) }
    public func dense(as type: DType) -> Tensor { parameter.tensor.to(type) }
    public func replacing(with dense: Tensor) -> any LinearWeight {
        NarrowWeight(dense.to(parameter.tensor.dtype).contiguous())
    }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
