// Matmuls of tensors by the fastest library: for fp32 on the CPU that may be the one of `Blas.hpp`.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <algorithm>

#include "Elements.hpp"
#include "ckernels/Blas.hpp"

namespace ctorch {

/// A matrix with contiguous rows or columns, as BLAS reads it.
struct BlasMatrix {
    const float *data;
    int64_t stride;
    bool is_transposed;

    explicit BlasMatrix(const at::Tensor &x) : data(floats(x)), is_transposed(!by_rows(x)) {
        const int64_t lines = is_transposed ? x.size(1) : x.size(0), length = is_transposed ? x.size(0) : x.size(1);
        // The stride of a single row or column is arbitrary.
        stride = lines > 1 ? (is_transposed ? x.stride(1) : x.stride(0)) : std::max<int64_t>(1, length);
    }

    /// Contiguous rows that don't overlap, unlike those of a broadcast tensor.
    static bool by_rows(const at::Tensor &x) {
        return (x.stride(1) == 1 || x.size(1) == 1) && (x.size(0) <= 1 || x.stride(0) >= std::max<int64_t>(1, x.size(1)));
    }
    static bool fits(const at::Tensor &x) { return by_rows(x) || by_rows(x.t()); }
};

inline at::Tensor readable(const at::Tensor &x) { return BlasMatrix::fits(x) ? x : x.contiguous(); }

/// x [m, k] · y [k, n] in fp32 on the CPU by `matrix_product`, plus beta times `result`, if given, which it is
/// written to.
inline at::Tensor blas_product(const at::Tensor &x, const at::Tensor &y, at::Tensor result = {}, float beta = 1) {
    if (!result.defined()) beta = 0;
    if (!result.defined()) result = at::empty({x.size(0), y.size(1)}, x.options());
    at::Tensor a = readable(x), b = readable(y);
    BlasMatrix first(a), second(b);
    ckernels::matrix_product(first.is_transposed, second.is_transposed, x.size(0), y.size(1), x.size(1), first.data, first.stride,
                             second.data, second.stride, beta, mutable_floats(result),
                             std::max(result.stride(0), result.size(1)));
    return result;
}

/// Whether to multiply them with the library of `Blas.hpp`.
inline bool are_for_blas(const at::Tensor &x, const at::Tensor &y) {
    return x.is_cpu() && y.is_cpu() && x.scalar_type() == at::kFloat && y.scalar_type() == at::kFloat &&
           ckernels::has_fast_blas();
}

/// x · y by the fastest library.
inline at::Tensor multiplied(const at::Tensor &x, const at::Tensor &y) {
    return are_for_blas(x, y) ? blas_product(x, y) : at::mm(x, y);
}

/// result = x · y.
inline void set_product(at::Tensor &result, const at::Tensor &x, const at::Tensor &y) {
    if (are_for_blas(x, y) && BlasMatrix::by_rows(result)) {
        blas_product(x, y, result, 0);
    } else {
        at::mm_out(result, x, y);
    }
}

/// sum += x · y.
inline void add_product(at::Tensor &sum, const at::Tensor &x, const at::Tensor &y) {
    if (are_for_blas(x, y) && BlasMatrix::by_rows(sum)) {
        blas_product(x, y, sum);
    } else {
        sum.addmm_(x, y);
    }
}

}  // namespace ctorch
