// A matrix product from a library other than libtorch's, where that is the faster one.
#pragma once

#include <cstdint>

namespace ctorch {

/// Whether products of fp32 matrices on the CPU are to go through `matrix_product`.
bool has_fast_blas();

/// Row-major C [m, n] = A' [m, k] · B' [k, n] + beta · C over all of libtorch's threads, where A' is A, or Aᵀ if A is
/// stored [k, m], and B' likewise. Strides are those of rows.
void matrix_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, const float *a,
                    int64_t a_stride, const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride);

/// Whether `serial_product` has a library to call: the one above, or the MKL inside libtorch.
bool has_serial_blas();

/// C = alpha · A' B' + beta · C on the calling thread.
void serial_product(bool a_is_transposed, bool b_is_transposed, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t a_stride, const float *b, int64_t b_stride, float beta, float *c, int64_t c_stride);

}  // namespace ctorch
