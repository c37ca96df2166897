import CTorch

extension Tensor {
    /// The elementwise sum; shapes broadcast as in PyTorch.
    public static func + (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_ADD, a.pointer, b.pointer)) }
    /// The elementwise difference; shapes broadcast as in PyTorch.
    public static func - (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_SUB, a.pointer, b.pointer)) }
    /// The elementwise product; shapes broadcast as in PyTorch.
    public static func * (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_MUL, a.pointer, b.pointer)) }
    /// The elementwise quotient; shapes broadcast as in PyTorch.
    public static func / (a: Tensor, b: Tensor) -> Tensor { wrap(ct_binary(CT_DIV, a.pointer, b.pointer)) }
    /// Adds a number to every element.
    public static func + (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_ADD, a.pointer, b)) }
    /// Subtracts a number from every element.
    public static func - (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_SUB, a.pointer, b)) }
    /// Multiplies every element by a number.
    public static func * (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_MUL, a.pointer, b)) }
    /// Divides every element by a number.
    public static func / (a: Tensor, b: Double) -> Tensor { wrap(ct_binary_scalar(CT_DIV, a.pointer, b)) }
    /// Multiplies every element by a number.
    public static func * (a: Double, b: Tensor) -> Tensor { b * a }
    /// Negates every element.
    public static prefix func - (a: Tensor) -> Tensor { wrap(ct_unary(CT_NEG, a.pointer)) }

    /// Where elements equal a number: booleans of the same shape.
    public func equal(to other: Tensor) -> Tensor { wrap(ct_binary(CT_EQ, pointer, other.pointer)) }
    /// Where elements are less than a number: booleans of the same shape.
    public func less(than value: Double) -> Tensor { wrap(ct_binary_scalar(CT_LT, pointer, value)) }
    /// Where elements are less than another tensor's: booleans of the broadcast shape.
    public func less(than other: Tensor) -> Tensor { wrap(ct_binary(CT_LT, pointer, other.pointer)) }
    /// Where elements are greater than a number: booleans of the same shape.
    public func greater(than value: Double) -> Tensor { wrap(ct_binary_scalar(CT_GT, pointer, value)) }
    /// max(self, value), elementwise.
    public func atLeast(_ value: Double) -> Tensor { wrap(ct_binary_scalar(CT_MAXIMUM, pointer, value)) }
    /// min(self, value), elementwise.
    public func atMost(_ value: Double) -> Tensor { wrap(ct_binary_scalar(CT_MINIMUM, pointer, value)) }

    /// The square root of every element.
    public func sqrt() -> Tensor { wrap(ct_unary(CT_SQRT, pointer)) }
    package func rsqrt() -> Tensor { wrap(ct_unary(CT_RSQRT, pointer)) }
    /// e to the power of every element.
    public func exp() -> Tensor { wrap(ct_unary(CT_EXP, pointer)) }
    /// The natural logarithm of every element.
    public func log() -> Tensor { wrap(ct_unary(CT_LOG, pointer)) }
    /// The hyperbolic tangent of every element.
    public func tanh() -> Tensor { wrap(ct_unary(CT_TANH, pointer)) }
    /// 1 / (1 + e⁻ˣ) of every element.
    public func sigmoid() -> Tensor { wrap(ct_unary(CT_SIGMOID, pointer)) }
    /// ln(1 + eˣ) of every element.
    package func softplus() -> Tensor { wrap(ct_unary(CT_SOFTPLUS, pointer)) }
    /// The absolute value of every element.
    public func abs() -> Tensor { wrap(ct_unary(CT_ABS, pointer)) }
    /// The square of every element.
    public func squared() -> Tensor { wrap(ct_unary(CT_SQUARE, pointer)) }
    package func isFinite() -> Tensor { wrap(ct_unary(CT_ISFINITE, pointer)) }
    package func sign() -> Tensor { wrap(ct_unary(CT_SIGN, pointer)) }
    package func rounded() -> Tensor { wrap(ct_unary(CT_ROUND, pointer)) }
    /// The sine of every element, in radians.
    public func sin() -> Tensor { wrap(ct_unary(CT_SIN, pointer)) }
    /// The cosine of every element, in radians.
    public func cos() -> Tensor { wrap(ct_unary(CT_COS, pointer)) }
    /// Every element to the power of a number.
    public func pow(_ exponent: Double) -> Tensor { wrap(ct_pow(pointer, exponent)) }

    /// Matmul over the last two axes, broadcast over the others: `[..., m, k]`, `[..., k, n]` -> `[..., m, n]`.
    public func matmul(_ other: Tensor) -> Tensor { wrap(ct_matmul(pointer, other.pointer)) }

    /// The sum of all elements, a scalar.
    public func sum() -> Tensor { wrap(ct_sum(pointer, nil, 0, false)) }
    /// Sums over axes; `keep` leaves them in the shape with size 1.
    public func sum(axes: [Int], keep: Bool = false) -> Tensor {
        withShape(axes) { wrap(ct_sum(pointer, $0, $1, keep)) }
    }
    /// The mean of all elements, a scalar.
    public func mean() -> Tensor { wrap(ct_mean(pointer, nil, 0, false)) }
    /// Means over axes; `keep` leaves them in the shape with size 1.
    public func mean(axes: [Int], keep: Bool = false) -> Tensor {
        withShape(axes) { wrap(ct_mean(pointer, $0, $1, keep)) }
    }
    /// The largest element, a scalar.
    public func max() -> Tensor { wrap(ct_max(pointer)) }
    /// Index of the largest element along `axis`, int64.
    public func argmax(axis: Int) -> Tensor { wrap(ct_argmax(pointer, Int32(axis))) }
    /// The softmax along an axis.
    public func softmax(axis: Int = -1) -> Tensor { wrap(ct_softmax(pointer, Int32(axis))) }
    package func logSoftmax(axis: Int = -1) -> Tensor { wrap(ct_log_softmax(pointer, Int32(axis))) }
    package func cumulativeSum(axis: Int) -> Tensor {
        // libtorch can't differentiate it without values; any function of this shape has the same memory.
        device == .meta ? self * 1 : wrap(ct_cumsum(pointer, Int32(axis)))
    }

    /// The `k` largest elements along `axis` in descending order, with their indices (int64).
    package func topK(_ k: Int, axis: Int = -1) -> (values: Tensor, indices: Tensor) {
        var values: OpaquePointer?
        var indices: OpaquePointer?
        check(ct_topk(pointer, Int64(k), Int32(axis), &values, &indices))
        return (Tensor(owning: values ?? ct_undefined()), Tensor(owning: indices ?? ct_undefined()))
    }

    /// self += alpha · other, in place.
    package func add(_ other: Tensor, alpha: Double = 1) { check(ct_add_in_place(pointer, other.pointer, alpha)) }
    /// self + weight · (other − self), rounded as `torch.lerp`.
    package func interpolated(to other: Tensor, _ weight: Double) -> Tensor {
        wrap(ct_lerp(pointer, other.pointer, weight))
    }
    /// self *= factor, in place.
    package func scale(by factor: Double) { check(ct_scale_in_place(pointer, factor)) }
    package func fill(_ value: Double) { check(ct_fill(pointer, value)) }
    /// self[rows[i]][columns[i]] = value, in place, for a matrix and int64 indices.
    package func set(rows: Tensor, columns: Tensor, to value: Double) {
        check(ct_set_elements(pointer, rows.pointer, columns.pointer, value))
    }
}
