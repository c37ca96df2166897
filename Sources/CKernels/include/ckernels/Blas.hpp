// GEMM from a library other than libtorch's, where that is faster.
#pragma once

#include <cstdint>

namespace ckernels {

/// Sets where OpenBLAS is looked for first, before the first matmul: beside the library that contains the address.
void look_for_blas_beside(const void *address);

/// Name of that library, "" without one.
const char *blas_name();

/// Enables or disables it for the calling thread's matmuls, for comparisons.
void allow_blas(bool allowed);

/// Whether fp32 matmuls on the CPU should use `matrix_product`.
bool has_fast_blas();

/// Row-major C [m, n] = A' [m, k] · B' [k, n] + beta · C on all threads, where A' is A, or Aᵀ if A is
/// stored [k, m], and B' likewise. Strides are row strides (leading dimensions).
void matrix_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, const float *a, int64_t a_stride,
                    const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride);

/// Whether `serial_product` has a library: the one above, or the MKL inside libtorch.
bool has_serial_blas();

/// GEMM on the calling thread: C = alpha · A' B' + beta · C.
void serial_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t a_stride, const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride);

}  // namespace ckernels
