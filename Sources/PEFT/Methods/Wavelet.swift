import Torch

/// An orthogonal wavelet (Daubechies 1988) with the filters of its inverse transform.
enum Wavelet: String, CaseIterable, Sendable {
    case db1, db2, db3, sym2, sym3

    /// Low-pass filter of the inverse transform, of even length. The symlets of order 2 and 3 are Daubechies'.
    var low: [Double] {
        switch self {
        case .db1: return [Double(0.5).squareRoot(), Double(0.5).squareRoot()]
        case .db2, .sym2:
            let root = 3.0.squareRoot()
            return [1 + root, 3 + root, 3 - root, 1 - root].map { $0 / (4 * 2.0.squareRoot()) }
        case .db3, .sym3:
            let z = 10.0.squareRoot()
            let w = (5 + 2 * z).squareRoot()
            let values = [1 + z + w, 5 + z + 3 * w, 10 - 2 * z + 2 * w, 10 - 2 * z - 2 * w, 5 + z - 3 * w, 1 + z - w]
            return values.map { $0 / (16 * 2.0.squareRoot()) }
        }
    }

    /// High-pass filter: the low-pass one reversed with alternating signs.
    var high: [Double] { low.reversed().enumerated().map { $0.offset.isMultiple(of: 2) ? $0.element : -$0.element } }

    /// One level of the inverse transform along the first axis: approximation and detail coefficients `[n, m]` ->
    /// `[2 n − length + 2, m]`.
    func inverse(_ approximation: Tensor, _ detail: Tensor) -> Tensor {
        let (low, high) = (low, high)
        let (count, skipped) = (approximation.dim(0), low.count / 2 - 1)
        // Even and odd outputs are separate convolutions.
        let phases = (0..<2).map { phase in
            (0...skipped).map { tap -> Tensor in
                let range = (skipped - tap)..<(count - tap)
                return approximation.narrowed(axis: 0, range) * low[2 * tap + phase]
                    + detail.narrowed(axis: 0, range) * high[2 * tap + phase]
            }.reduce(nil as Tensor?) { sum, term in sum.map { $0 + term } ?? term } ?? approximation
        }
        return Tensor.concatenated(phases.map { $0.unsqueezed(1) }, axis: 1)
            .reshaped(2 * (count - skipped), approximation.dim(1))
    }

    /// One level of the inverse 2-D transform of coefficients `[rows, columns]`, both even. As in Hugging Face PEFT, the
    /// upper right quarter holds the details along the rows' axis and the lower left those along the columns'.
    func inverse(_ coefficients: Tensor) -> Tensor {
        let (rows, columns) = (coefficients.dim(0) / 2, coefficients.dim(1) / 2)
        func quarter(_ row: Int, _ column: Int) -> Tensor {
            coefficients.narrowed(axis: 0, (row * rows)..<((row + 1) * rows))
                .narrowed(axis: 1, (column * columns)..<((column + 1) * columns))
        }
        let (approximation, detail) = (
            inverse(quarter(0, 0), quarter(0, 1)), inverse(quarter(1, 0), quarter(1, 1))
        )
        return inverse(approximation.T, detail.T).T
    }
}
