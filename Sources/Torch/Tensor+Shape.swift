import CTorch

extension Tensor {
    /// One size may be −1 and is inferred. Returns a view if the layout allows.
    public func reshaped(_ shape: [Int]) -> Tensor { withShape(shape) { wrap(ct_reshape(pointer, $0, $1)) } }
    /// The same elements in row-major order in another shape; one size may be −1.
    public func reshaped(_ shape: Int...) -> Tensor { reshaped(shape) }
    /// A view with reordered axes.
    public func permuted(_ axes: Int...) -> Tensor { withShape(axes) { wrap(ct_permute(pointer, $0, $1)) } }
    /// A view with axes `a` and `b` swapped.
    public func transposed(_ a: Int = -2, _ b: Int = -1) -> Tensor {
        wrap(ct_transpose(pointer, Int32(a), Int32(b)))
    }
    /// The transpose of a matrix.
    public var T: Tensor { transposed() }
    /// A view of the range of an axis.
    public func narrowed(axis: Int, _ range: Range<Int>) -> Tensor {
        wrap(ct_narrow(pointer, Int32(axis), Int64(range.lowerBound), Int64(range.count)))
    }
    /// Views of consecutive ranges of an axis. The backward pass computes one gradient of the whole, rather than one
    /// per ``narrowed`` view.
    public func split(axis: Int, _ lengths: [Int]) -> [Tensor] {
        var parts = [OpaquePointer?](repeating: nil, count: lengths.count)
        check(ct_split(pointer, Int32(axis), lengths.map(Int64.init), Int32(lengths.count), &parts))
        return parts.map { Tensor(owning: $0 ?? ct_undefined()) }
    }
    /// A view of element `index` of the first axis.
    public subscript(_ index: Int) -> Tensor {
        narrowed(axis: 0, index..<(index + 1)).reshaped(Array(shape.dropFirst()))
    }
    /// Expands axes of size 1 without copying.
    public func expanded(_ shape: [Int]) -> Tensor { withShape(shape) { wrap(ct_expand(pointer, $0, $1)) } }
    /// Inserts an axis of size 1.
    public func unsqueezed(_ axis: Int) -> Tensor {
        var shape = shape
        let place = axis < 0 ? axis + shape.count + 1 : axis
        // The empty result of a failed operation has no axes.
        guard shape.indices.contains(place) || place == shape.count else {
            FailureLog.record("a tensor of shape \(shape) has no axis \(axis)")
            return self
        }
        shape.insert(1, at: place)
        return reshaped(shape)
    }

    /// Concatenates tensors that differ in the size of one axis at most.
    public static func concatenated(_ tensors: [Tensor], axis: Int = 0) -> Tensor {
        let pointers: [OpaquePointer?] = tensors.map(\.pointer)
        return withExtendedLifetime(tensors) {
            pointers.withUnsafeBufferPointer { list in
                wrap(ct_cat(list.baseAddress, Int32(list.count), Int32(axis)))
            }
        }
    }

    /// The rows (or other slices along `axis`) with the given int64 indices.
    public func selecting(axis: Int = 0, _ indices: Tensor) -> Tensor {
        wrap(ct_index_select(pointer, Int32(axis), indices.pointer))
    }
    /// A copy in which the rows (or slices along `axis`) with the given int64 indices are replaced by those of
    /// `source`.
    public func replacing(axis: Int = 0, _ indices: Tensor, with source: Tensor) -> Tensor {
        wrap(ct_index_copy(pointer, Int32(axis), indices.pointer, source.pointer))
    }
    /// out[i][j] = self[i][indices[i][j]] for the last axis, and so on for others.
    package func gathering(axis: Int, _ indices: Tensor) -> Tensor {
        wrap(ct_gather(pointer, Int32(axis), indices.pointer))
    }
    /// self where `condition` holds, else `other`.
    public func selecting(where condition: Tensor, else other: Tensor) -> Tensor {
        wrap(ct_where(condition.pointer, pointer, other.pointer))
    }
    package func flipped(axis: Int) -> Tensor { wrap(ct_flip(pointer, Int32(axis))) }
}
