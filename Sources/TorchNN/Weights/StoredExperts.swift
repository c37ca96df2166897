import Torch

/// Matrices of experts in the format of a projection's weight, one below the other, `[experts · outputs, inputs]`: matmuls
/// dequantize tiles of one expert at a time.
package struct StoredExperts: ExpertWeight {
    private let weight: any LinearWeight
    private let matrix: StoredMatrix
    package let experts: Int

    /// - Returns: `nil` if the format has no matmul by tiles.
    package init?(_ weight: any LinearWeight, experts: Int) {
        guard case .stored(let matrix) = weight.projectionMatrix, weight.outputs.isMultiple(of: experts) else {
            return nil
        }
        (self.weight, self.matrix, self.experts) = (weight, matrix, experts)
    }

    package var outputs: Int { weight.outputs / experts }
    package var inputs: Int { weight.inputs }
    package var parameters: [(key: String, parameter: Parameter)] { weight.parameters }
    package var matrices: ExpertMatrices { ExpertMatrices(.stored(matrix), experts: experts) }
    package func dense(as type: DType) -> Tensor { weight.dense(as: type).reshaped(experts, outputs, inputs) }
    package var formatName: String { weight.formatName }
    package var precision: WeightPrecision { weight.precision }
    package func replacing(with dense: Tensor) throws -> any ExpertWeight {
        let rows = dense.reshaped(experts * outputs, inputs).to(.float32)
        return StoredExperts(try weight.replacing(with: rows), experts: experts) ?? self
    }
}
