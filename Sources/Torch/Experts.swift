import CTorch

/// The matrices W_e `[outputs, inputs]` of all experts e of a projection.
package struct ExpertMatrices {
    package enum Storage {
        /// `[experts, outputs, inputs]`, or `[experts, inputs, outputs]` if it is transposed.
        case dense(Tensor, isTransposed: Bool)
        /// One below the other: `[experts · outputs, inputs]`.
        case stored(StoredMatrix)
        /// Group-wise integers, whose parts have a leading dimension of experts.
        case groups(GroupQuantizedMatrix)
    }

    package let storage: Storage
    package let experts: Int

    package init(_ storage: Storage, experts: Int) { (self.storage, self.experts) = (storage, experts) }

    /// Calls `body` with the matrices as C reads them.
    fileprivate func withRaw<Result>(_ body: (UnsafePointer<CTExpertStack>) -> Result) -> Result {
        var raw = CTExpertStack()
        raw.experts = Int64(experts)
        return withExtendedLifetime(storage) {
            switch storage {
            case .dense(let tensor, let isTransposed): (raw.dense, raw.is_transposed) = (tensor.pointer, isTransposed)
            case .stored(let matrix): raw.stored = matrix.raw
            case .groups(let matrix): raw.groups = matrix.raw
            }
            return withUnsafePointer(to: &raw, body)
        }
    }
}

/// Which experts compute which tokens.
package struct ExpertRouting {
    /// The assignments `[tokens · choices]`, ordered by expert: indices into the flat ones, int64.
    package let order: Tensor
    /// Where each expert's assignments start in ``order``, int64 `[experts + 1]` on the CPU.
    package let offsets: Tensor
    /// Number of experts per token.
    package let choices: Int

    /// - Parameter assignments: the chosen experts of each token, int64 `[tokens, choices]`.
    package init(_ assignments: Tensor, experts: Int) {
        var (first, second): (OpaquePointer?, OpaquePointer?)
        check(ct_expert_routing(assignments.pointer, Int64(experts), &first, &second))
        order = Tensor(owning: first ?? ct_undefined())
        offsets = Tensor(owning: second ?? ct_undefined())
        choices = assignments.dim(1)
    }

    /// The token of each assignment, in the order of experts, int64.
    package var tokens: Tensor {
        // Whole numbers up to 2⁵³ are exact.
        let exact = order.to(.float64) / Double(choices)
        let nearest = exact.rounded()
        return (nearest - exact.less(than: nearest).to(.float64)).to(.int64)
    }

    /// Number of assignments of each expert, int64 `[experts]` on the CPU.
    package var counts: Tensor {
        let experts = offsets.dim(0) - 1
        return offsets.narrowed(axis: 0, 1..<experts + 1) - offsets.narrowed(axis: 0, 0..<experts)
    }
}

extension Functions {
    /// x W_eᵀ + bias_e + scale · x A_eᵀ B_eᵀ for each assignment with its expert e, in the order of experts.
    ///
    /// - Parameters:
    ///   - x: `[tokens, inputs]`, or `[tokens · choices, inputs]` in the order of experts if `isOrdered`.
    ///   - bias: `[experts, outputs]`.
    ///   - update: LoRA factors A `[experts, rank, inputs]` and B `[experts, outputs, rank]` with their scale.
    /// - Returns: `[tokens · choices, outputs]`. Gradients flow to x, the bias, the factors and a dense weight.
    package static func expertLinear(
        _ x: Tensor, _ matrices: ExpertMatrices, bias: Tensor? = nil,
        update: (a: Tensor, b: Tensor, scale: Double)? = nil, routing: ExpertRouting, isOrdered: Bool
    ) -> Tensor {
        matrices.withRaw {
            wrap(
                ct_expert_linear(
                    x.pointer, $0, bias?.pointer, update?.a.pointer, update?.b.pointer, update?.scale ?? 0,
                    routing.order.pointer, routing.offsets.pointer, isOrdered ? 0 : Int64(routing.choices)))
        }
    }

    /// Σⱼ weights[t, j] · y_tj of the experts' outputs y `[tokens · choices, size]`, in the order of experts, with weights
    /// `[tokens, choices]` -> `[tokens, size]`.
    package static func expertSum(_ y: Tensor, weights: Tensor, routing: ExpertRouting) -> Tensor {
        wrap(ct_expert_sum(y.pointer, weights.pointer, routing.order.pointer))
    }
}
