import Torch

/// A weight whose matmul dequantizes tile by tile.
package protocol StoredWeight: LinearWeight {
    var matrix: StoredMatrix { get }
}

extension StoredWeight {
    package var projectionMatrix: Projection.Matrix? { .stored(matrix) }
    package func project(_ x: Tensor, bias: Tensor?) -> Tensor { matrix.project(x, bias: bias) }
    package func rows(_ ids: Tensor, as type: DType) -> Tensor { matrix.rows(ids, as: type) }
    package func crossEntropy(
        hidden: Tensor, bias: Tensor?, targets: Tensor, scale: Double, softcap: Double?, labelSmoothing: Double
    ) -> Tensor {
        matrix.crossEntropy(
            hidden: hidden, bias: bias, targets: targets, scale: scale, softcap: softcap,
            labelSmoothing: labelSmoothing)
    }
    package func dense(as type: DType) -> Tensor { matrix.dense(as: type) }
}
