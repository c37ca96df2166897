import Torch

/// Token sequences packed end to end, without padding.
public struct PackedSequences {
    /// Token ids of all sequences, int64 `[tokens]`.
    package let ids: Tensor
    /// Where each sequence starts, and the end: rows + 1 entries.
    package let offsets: [Int]
    /// The largest id; −1 without tokens.
    package let largestID: Int

    package init(_ rows: [[Int]], device: Device = .cpu) {
        var offsets = [0]
        for row in rows { offsets.append((offsets.last ?? 0) + row.count) }
        self.offsets = offsets
        largestID = rows.reduce(-1) { max($0, $1.max() ?? -1) }
        ids = Tensor(rows.flatMap { $0 }, device: device)
    }

    package var rows: Int { offsets.count - 1 }
    package var tokens: Int { offsets.last ?? 0 }
    package var lengths: [Int] { zip(offsets.dropFirst(), offsets).map { $0 - $1 } }
    package var longest: Int { lengths.max() ?? 0 }
}

extension Tensor {
    /// Packed `[tokens, ...]` -> padded `[rows, longest, ...]`, zero-filled after each sequence's end.
    package func padded(_ offsets: [Int]) -> Tensor {
        let lengths = zip(offsets.dropFirst(), offsets).map { $0 - $1 }
        let longest = lengths.max() ?? 0
        let rest = Array(shape.dropFirst())
        let rows = lengths.indices.map { row -> Tensor in
            let part = narrowed(axis: 0, offsets[row]..<offsets[row + 1])
            guard lengths[row] < longest else { return part.unsqueezed(0) }
            let padding = Tensor.zeros([longest - lengths[row]] + rest, dtype: dtype, device: device)
            return Tensor.concatenated([part, padding]).unsqueezed(0)
        }
        return Tensor.concatenated(rows)
    }
}
