import Torch

/// A dense weight stored as `[inputs, outputs]`, as in GPT-2's files.
public struct TransposedWeight: LinearWeight {
    /// `[inputs, outputs]`
    public let parameter: Parameter

    public init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    /// A projection with a transposed weight, without values.
    public static func linear(_ inputs: Int, _ outputs: Int, device: Device = .meta) -> Linear {
        Linear(
            TransposedWeight(.empty([inputs, outputs], device: device)),
            bias: Parameter(.empty([outputs], device: device)))
    }

    public var outputs: Int { parameter.tensor.dim(1) }
    public var inputs: Int { parameter.tensor.dim(0) }
    public func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor.T, bias: bias) }
    public func dense(as type: DType) -> Tensor { parameter.tensor.T.to(type) }
    public var formatName: String { WeightFormat.name(of: parameter.tensor.dtype) }
    public var precision: WeightPrecision { .full }
    public var isTransposed: Bool { true }
    public func replacing(with dense: Tensor) -> any LinearWeight {
        TransposedWeight(dense.T.to(parameter.tensor.dtype).contiguous())
    }
    public var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
