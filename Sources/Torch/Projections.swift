import CTorch

/// x Wᵀ + bias + scale · x aᵀ bᵀ, one of several projections of the same input.
public struct Projection {
    /// W [outputs, inputs].
    public enum Matrix {
        case dense(Tensor)
        case stored(StoredMatrix)
    }

    public let matrix: Matrix
    public let bias: Tensor?
    /// a [rank, inputs] and b [outputs, rank].
    public let update: (a: Tensor, b: Tensor, scale: Double)?

    public init(_ matrix: Matrix, bias: Tensor?, update: (a: Tensor, b: Tensor, scale: Double)? = nil) {
        (self.matrix, self.bias, self.update) = (matrix, bias, update)
    }

    fileprivate var raw: CTProjection {
        var (weight, stored): (OpaquePointer?, CTStoredMatrix) = (nil, CTStoredMatrix())
        switch matrix {
        case .dense(let tensor): weight = tensor.pointer
        case .stored(let matrix): stored = matrix.raw
        }
        return CTProjection(
            weight: weight, stored: stored, bias: bias?.pointer, a: update?.a.pointer, b: update?.b.pointer,
            scale: update?.scale ?? 0)
    }
}

extension Functions {
    /// x [..., inputs] → [..., outputs] by each projection, without gradients: where rows are few, as in a step of
    /// generation, every matrix is read once and threads meet once.
    public static func projections(_ x: Tensor, _ list: [Projection]) -> [Tensor] {
        withExtendedLifetime(list) {
            var results = [OpaquePointer?](repeating: nil, count: list.count)
            check(ct_projections(x.pointer, Int32(list.count), list.map(\.raw), &results))
            return results.map { Tensor(owning: $0 ?? ct_undefined()) }
        }
    }
}
