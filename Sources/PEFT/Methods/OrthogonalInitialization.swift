import PEFTSupport
import Torch

/// Semi-orthogonal A and B with A Bᵀ = 0 (even ranks).
package struct OrthogonalInitialization: LoRAInitialization {
    package static let name = "orthogonal"

    package init() {}

    package func validate(rank: Int) throws {
        guard rank.isMultiple(of: 2) else {
            throw PEFTError(
                "the rank \(rank) is odd, which orthogonal initialization doesn't support",
                remedy: "use an even rank")
        }
    }

    package func initialize(a: Tensor, b: Tensor, from random: inout SeededRandom) {
        let (rank, dtype, device) = (a.dim(0), a.dtype, a.device)
        // Rows of A and columns of B are the two halves of one orthonormal basis.
        let square = Tensor.empty([rank, rank], dtype: dtype, device: device)
        square.fillNormal(from: &random)
        let basis = square.to(.float64).qr().q.to(dtype)
        let odd = basis.selecting(Tensor(Array(stride(from: 0, to: rank, by: 2)), device: device))
        let even = basis.selecting(Tensor(Array(stride(from: 1, to: rank, by: 2)), device: device))
        let left = Tensor.empty([a.dim(1), odd.dim(0)], dtype: dtype, device: device)
        let right = Tensor.empty([b.dim(0), even.dim(0)], dtype: dtype, device: device)
        left.fillNormal(deviation: 0.1, from: &random)
        right.fillNormal(deviation: 0.1, from: &random)
        a.copy(from: left.matmul(odd).T)
        b.copy(from: right.matmul(even))
    }
}
