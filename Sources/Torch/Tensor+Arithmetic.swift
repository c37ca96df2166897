import CTorch

extension Tensor {
    public static func + (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_ADD, a.pointer, b.pointer)) }
    public static func - (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_SUB, a.pointer, b.pointer)) }
    public static func * (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_MUL, a.pointer, b.pointer)) }
    public static func / (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_DIV, a.pointer, b.pointer)) }
    public static func + (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_ADD, a.pointer, b)) }
    public static func - (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_SUB, a.pointer, b)) }
    public static func * (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_MUL, a.pointer, b)) }
    public static func / (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_DIV, a.pointer, b)) }
    public static func * (a: Double, b: Tensor) -> Tensor { b * a }
    public static prefix func - (a: Tensor) -> Tensor { wrap(ct_unary(CT_NEG, a.pointer)) }

    public func equal(to other: Tensor) -> Tensor { wrap(ct_binary(CT_EQ, pointer, other.pointer)) }
    public func less(than value: Double) -> Tensor { wrap(ct_binary_scalar(CT_LT, pointer, value)) }
    public func less(than other: Tensor) -> Tensor { wrap(ct_binary(CT_LT, pointer, other.pointer)) }
    public func greater(than value: Double) -> Tensor { wrap(ct_binary_scalar(CT_GT, pointer, value)) }
    /// max(self, value), elementwise.
    public func atLeast(_ value: Double) -> Tensor { wrap(ct_binary_scalar(CT_MAXIMUM, pointer, value)) }
    /// min(self, value), elementwise.
    public func atMost(_ value: Double) -> Tensor { wrap(ct_binary_scalar(CT_MINIMUM, pointer, value)) }

    public func sqrt() -> Tensor { wrap(ct_unary(CT_SQRT, pointer)) }
    public func rsqrt() -> Tensor { wrap(ct_unary(CT_RSQRT, pointer)) }
    public func exp() -> Tensor { wrap(ct_unary(CT_EXP, pointer)) }
    public func log() -> Tensor { wrap(ct_unary(CT_LOG, pointer)) }
    public func tanh() -> Tensor { wrap(ct_unary(CT_TANH, pointer)) }
    public func sigmoid() -> Tensor { wrap(ct_unary(CT_SIGMOID, pointer)) }
    public func abs() -> Tensor { wrap(ct_unary(CT_ABS, pointer)) }
    public func squared() -> Tensor { wrap(ct_unary(CT_SQUARE, pointer)) }
    public func isFinite() -> Tensor { wrap(ct_unary(CT_ISFINITE, pointer)) }
    public func sign() -> Tensor { wrap(ct_unary(CT_SIGN, pointer)) }
    public func rounded() -> Tensor { wrap(ct_unary(CT_ROUND, pointer)) }
    public func sin() -> Tensor { wrap(ct_unary(CT_SIN, pointer)) }
    public func cos() -> Tensor { wrap(ct_unary(CT_COS, pointer)) }
    public func pow(_ exponent: Double) -> Tensor { wrap(ct_pow(pointer, exponent)) }

    /// Matmul over the last two axes, broadcast over the others: `[..., m, k]`, `[..., k, n]` -> `[..., m, n]`.
    public func matmul(_ other: Tensor) -> Tensor { wrap(ct_matmul(pointer, other.pointer)) }

    public func sum() -> Tensor { wrap(ct_sum(pointer, nil, 0, false)) }
    public func sum(axes: [Int], keep: Bool = false) -> Tensor {
        withShape(axes) { wrap(ct_sum(pointer, $0, $1, keep)) }
    }
    public func mean() -> Tensor { wrap(ct_mean(pointer, nil, 0, false)) }
    public func mean(axes: [Int], keep: Bool = false) -> Tensor {
        withShape(axes) { wrap(ct_mean(pointer, $0, $1, keep)) }
    }
    public func max() -> Tensor { wrap(ct_max(pointer)) }
    /// Index of the largest element along `axis`, int64.
    public func argmax(axis: Int) -> Tensor { wrap(ct_argmax(pointer, Int32(axis))) }
    public func softmax(axis: Int = -1) -> Tensor { wrap(ct_softmax(pointer, Int32(axis))) }
    public func logSoftmax(axis: Int = -1) -> Tensor { wrap(ct_log_softmax(pointer, Int32(axis))) }
    public func cumulativeSum(axis: Int) -> Tensor { wrap(ct_cumsum(pointer, Int32(axis))) }

    /// The `k` largest elements along `axis` in descending order, with their indices (int64).
    public func topK(_ k: Int, axis: Int = -1) -> (values: Tensor, indices: Tensor) {
        var values: OpaquePointer?
        var indices: OpaquePointer?
        check(ct_topk(pointer, Int64(k), Int32(axis), &values, &indices))
        return (Tensor(owning: values ?? ct_undefined()), Tensor(owning: indices ?? ct_undefined()))
    }

    /// self += alpha · other, in place.
    public func add(_ other: Tensor, alpha: Double = 1) { check(ct_add_in_place(pointer, other.pointer, alpha)) }
    /// self *= factor, in place.
    public func scale(by factor: Double) { check(ct_scale_in_place(pointer, factor)) }
    public func fill(_ value: Double) { check(ct_fill(pointer, value)) }
    /// self[rows[i]][columns[i]] = value, in place, for a matrix and int64 indices.
    public func set(rows: Tensor, columns: Tensor, to value: Double) {
        check(ct_set_elements(pointer, rows.pointer, columns.pointer, value))
    }
}
