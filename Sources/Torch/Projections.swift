import CTorch

/// x Wᵀ + bias + scale · drop(x) aᵀ bᵀ, as one of several projections of the same input.
package struct Projection {
    /// W `[outputs, inputs]`.
    package enum Matrix {
        case dense(Tensor)
        case stored(StoredMatrix)
        case groups(GroupQuantizedMatrix)
    }

    /// A LoRA branch (Hu et al. 2021).
    package struct Update {
        /// `[rank, inputs]` and `[outputs, rank]`.
        package let a, b: Tensor
        package let scale: Double
        /// Dropout probability of the inputs and the seed of the mask.
        package let dropout: Double
        package let seed: UInt64

        package init(a: Tensor, b: Tensor, scale: Double, dropout: Double = 0, seed: UInt64 = 0) {
            (self.a, self.b, self.scale, self.dropout, self.seed) = (a, b, scale, dropout, seed)
        }
    }

    package let matrix: Matrix
    package let bias: Tensor?
    package let update: Update?

    package init(_ matrix: Matrix, bias: Tensor?, update: Update? = nil) {
        (self.matrix, self.bias, self.update) = (matrix, bias, update)
    }

    fileprivate var raw: CTProjection {
        var (weight, stored, group): (OpaquePointer?, CTStoredMatrix, CTGroupMatrix) = (nil, .init(), .init())
        switch matrix {
        case .dense(let tensor): weight = tensor.pointer
        case .stored(let matrix): stored = matrix.raw
        case .groups(let matrix): group = matrix.raw
        }
        return CTProjection(
            weight: weight, stored: stored, group: group, bias: bias?.pointer, a: update?.a.pointer,
            b: update?.b.pointer,
            scale: update?.scale ?? 0, dropout: update?.dropout ?? 0, seed: update?.seed ?? 0)
    }
}

extension Functions {
    /// x `[..., inputs]` -> `[..., outputs]` of each projection. With few rows, as in a decode step, all matrices are
    /// streamed in one pass with one thread barrier; with autograd, the gradient w.r.t. x is computed in one node.
    package static func projections(_ x: Tensor, _ list: [Projection]) -> [Tensor] {
        withExtendedLifetime(list) {
            var results = [OpaquePointer?](repeating: nil, count: list.count)
            check(ct_projections(x.pointer, Int32(list.count), list.map(\.raw), &results))
            return results.map { Tensor(owning: $0 ?? ct_undefined()) }
        }
    }
}
