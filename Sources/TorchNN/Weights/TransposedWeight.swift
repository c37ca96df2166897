import Torch

/// A dense weight stored as `[inputs, outputs]`, as in GPT-2's files.
package struct TransposedWeight: LinearWeight {
    /// `[inputs, outputs]`
    package let parameter: Parameter

    package init(_ tensor: Tensor) { parameter = Parameter(tensor) }

    /// A projection with a transposed weight, without values.
    package static func linear(_ inputs: Int, _ outputs: Int, device: Device = .meta) -> Linear {
        Linear(
            TransposedWeight(.empty([inputs, outputs], device: device)),
            bias: Parameter(.empty([outputs], device: device)))
    }

    package var outputs: Int { parameter.tensor.dim(1) }
    package var inputs: Int { parameter.tensor.dim(0) }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor { Functions.linear(x, parameter.tensor.T, bias: bias) }
    package func dense(as type: DType) -> Tensor { parameter.tensor.T.to(type) }
    package var formatName: String { WeightFormat.name(of: parameter.tensor.dtype) }
    package var precision: WeightPrecision { .full }
    package var isTransposed: Bool { true }
    package func replacing(with dense: Tensor) -> any LinearWeight {
        TransposedWeight(dense.T.to(parameter.tensor.dtype).contiguous())
    }
    package var parameters: [(key: String, parameter: Parameter)] { [("weight", parameter)] }
}
