import Torch

/// Random positions of a matrix, as PyTorch draws them: the first ones of `torch.randperm` for a seed.
enum RandomEntries {
    /// `count` distinct flat positions among `total`, in the order in which they were drawn.
    static func positions(_ count: Int, of total: Int, seed: UInt64) -> [Int] {
        Tensor.randomPermutation(total, seed: seed).narrowed(axis: 0, 0..<count).array()
    }

    /// A matrix `[rows, columns]` that is zero but for `values` at flat positions (int64).
    static func matrix(_ values: Tensor, at positions: Tensor, rows: Int, columns: Int) -> Tensor {
        Tensor.zeros([rows * columns], dtype: values.dtype, device: values.device)
            .replacing(positions, with: values).reshaped(rows, columns)
    }
}

extension AttachmentContext {
    /// Random flat positions, int64 `[count]`; the same for all projections of a size, as they have the same seed.
    func randomPositions(_ count: Int, of total: Int, seed: Int) -> Tensor {
        shared("positions \(count) of \(total)") {
            guard device != .meta else { return .empty([count], dtype: .int64, device: .meta) }
            return Tensor(RandomEntries.positions(count, of: total, seed: UInt64(max(0, seed))), device: device)
        }
    }
}
