import CTorch

// Decompositions and solvers over the last two axes; leading axes are batches.
extension Tensor {
    /// Singular value decomposition: self `[m, n]` = u · diag(s) · vh with u `[m, k]`, s `[k]` (descending), vh `[k,
    /// n]`, k = min(m, n).
    public func svd() -> (u: Tensor, s: Tensor, vh: Tensor) {
        var u: OpaquePointer?
        var s: OpaquePointer?
        var vh: OpaquePointer?
        check(ct_svd(pointer, &u, &s, &vh))
        return (owned(u), owned(s), owned(vh))
    }

    /// QR decomposition: self `[m, n]` = q · r with orthonormal columns of q `[m, k]` and upper triangular r `[k,
    /// n]`, k = min(m, n).
    public func qr() -> (q: Tensor, r: Tensor) {
        var q: OpaquePointer?
        var r: OpaquePointer?
        check(ct_qr(pointer, &q, &r))
        return (owned(q), owned(r))
    }

    /// The solution y `[n, k]` of self `[n, n]` · y = right.
    public func solving(_ right: Tensor) -> Tensor { wrap(ct_solve(pointer, right.pointer)) }

    /// The solution y `[n, k]` of a · y = right, where a is the lower triangle of self `[n, n]` with a diagonal of ones.
    package func solvingUnitLower(_ right: Tensor) -> Tensor {
        // As for a cumulative sum: libtorch has no such kernel without values.
        device == .meta ? right + matmul(right) : wrap(ct_solve_unit_lower(pointer, right.pointer))
    }

    /// The identity, `[size, size]`.
    public static func identity(_ size: Int, dtype: DType = .float32, device: Device = .cpu) -> Tensor {
        wrap(ct_eye(Int64(size), dtype.raw, device.raw, device.index))
    }

    /// The Kronecker product of matrices: `[a, b]` ⊗ `[c, d]` -> `[a · c, b · d]`.
    public func kronecker(_ other: Tensor) -> Tensor { wrap(ct_kron(pointer, other.pointer)) }

    /// The real part of the inverse 2-D Fourier transform of a real matrix `[m, n]`.
    public func inverseFourierReal() -> Tensor { wrap(ct_inverse_fourier_real(pointer)) }

    private func owned(_ pointer: OpaquePointer?) -> Tensor { Tensor(owning: pointer ?? ct_undefined()) }
}
