import Foundation
import Torch

/// Positions as sines and cosines of wavelengths from 2π to 10000 · 2π (Vaswani et al. 2017, section 3.5), the sines in the
/// first half of the vector.
final class SinusoidalPositions {
    enum Kind: Sendable {
        /// A table of learned positions instead.
        case learned
        /// The exponents of 10000 are 2 i / size; computed in fp64.
        case plain
        /// As in fairseq: they are i / (size / 2 − 1), the first position is the padding token's id + 1, and that of the
        /// padding token is zero; computed in fp32.
        case shifted
    }

    private let kind: Kind
    private let size: Int
    private let padToken: Int
    /// `[positions, size]` from 0 on.
    private var table: [Float] = []

    /// - Returns: `nil` for learned positions.
    init?(_ kind: Kind, size: Int, padToken: Int) {
        guard kind != .learned else { return nil }
        (self.kind, self.size, self.padToken) = (kind, size, padToken)
    }

    /// The vectors of positions, `[positions, size]`, on the device and in the dtype of x.
    func callAsFunction(_ positions: [Int], like x: Tensor) -> Tensor {
        guard x.device != .meta else { return .empty([positions.count, size], dtype: x.dtype, device: .meta) }
        let start = kind == .shifted ? padToken + 1 : 0
        let count = table.count / size
        if let last = positions.max(), last >= count {
            for position in count...last { table += vector(position + start) }
        }
        var values: [Float] = []
        values.reserveCapacity(positions.count * size)
        for position in positions { values += table[(position * size)..<((position + 1) * size)] }
        return Tensor(values, shape: [positions.count, size], device: x.device).to(x.dtype)
    }

    private func vector(_ position: Int) -> [Float] {
        if kind == .plain {
            let angles = (0..<size).map {
                Double(position) / Foundation.pow(10000, Double(2 * ($0 / 2)) / Double(size))
            }
            let sines = stride(from: 0, to: size, by: 2).map { Float(Foundation.sin(angles[$0])) }
            return sines + stride(from: 1, to: size, by: 2).map { Float(Foundation.cos(angles[$0])) }
        }
        let half = size / 2
        let step = Float(Foundation.log(10000) / Double(half - 1))
        let angles = (0..<half).map { Float(position) * Foundation.exp(Float($0) * -step) }
        let odd: [Float] = size.isMultiple(of: 2) ? [] : [0]
        return angles.map { Foundation.sin($0) } + angles.map { Foundation.cos($0) } + odd
    }
}
