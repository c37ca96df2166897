import Torch

/// Skew-symmetric matrices Q = −Qᵀ `[blocks, b, b]`, stored as their strictly upper triangles `[blocks, b (b − 1) / 2]`, and
/// the orthogonal matrices that Cayley's transform makes of them.
struct SkewSymmetric {
    let size: Int
    /// Flat indices of the strictly upper triangle.
    private let upper: Tensor

    init(size: Int, device: Device) {
        self.size = size
        upper = Tensor(
            (0..<size).flatMap { row in ((row + 1)..<max(size, row + 1)).map { row * size + $0 } }, device: device)
    }

    /// Number of elements of the strictly upper triangle.
    static func count(size: Int) -> Int { size * (size - 1) / 2 }

    /// Q, `[blocks, b, b]`.
    func matrix(_ triangles: Tensor) -> Tensor {
        let zeros = Tensor.zeros(
            [triangles.dim(0), size * size], dtype: triangles.dtype, device: triangles.device)
        let matrix = zeros.replacing(axis: 1, upper, with: triangles).reshaped(-1, size, size)
        return matrix - matrix.transposed()
    }

    /// (I + Q)⁻¹ (I − Q)
    func cayley(_ q: Tensor) -> Tensor {
        let identity = Tensor.identity(size, dtype: q.dtype, device: q.device)
        return (identity + q).solving(identity - q)
    }

    /// I + 2 Q + 2 Q² + … + Qᵏ: the Neumann series of (I + Q) (I − Q)⁻¹ with half of its last term.
    func neumann(_ q: Tensor, terms: Int) -> Tensor {
        let identity = Tensor.identity(size, dtype: q.dtype, device: q.device)
        var sum = identity + q * 0
        guard terms > 1 else { return sum }
        sum = sum + q * 2
        guard terms > 2 else { return sum }
        var power = q.matmul(q)
        sum = sum + power * 2
        for _ in 3..<max(3, terms - 1) {
            power = power.matmul(q)
            sum = sum + power * 2
        }
        return sum + power.matmul(q)
    }
}
