// GEMV-like kernels for few rows of x in fp32, as in decoding: one pass over W at memory bandwidth.
#pragma once

#include <cstdint>

namespace ckernels {

/// Maximum rows for these kernels; with more, blocked GEMM is faster.
constexpr int64_t few_dense_rows = 32;

/// A multiple of the outputs that the kernels compute at a time.
constexpr int64_t outputs_of_blocks = 12;
/// Minimum elements of a matrix per thread.
constexpr int64_t elements_of_a_thread = 65536;

/// What the result is added to.
enum class Start { zero, bias, output };

/// y [rows, outputs] = start + x [rows, inputs] Wᵀ, for outputs first ..< end, on the calling thread. All are
/// contiguous but W, whose row stride is `stride`.
void multiply_few_part(const float *weight, int64_t stride, const float *x, int64_t rows, int64_t inputs, float *y,
                       int64_t outputs, const float *bias, Start start, int64_t first, int64_t end);

/// x [rows, inputs] Wᵀ + b on all threads; the bias may be NULL.
void multiply_few(const float *weight, int64_t stride, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs,
                  const float *bias);

/// y += s · x Aᵀ Bᵀ for outputs first ..< end, on the calling thread, with contiguous y [rows, outputs], x [rows,
/// inputs], A [rank, inputs] and B [outputs, rank].
void add_low_rank(float *y, const float *x, int64_t rows, int64_t inputs, int64_t outputs, int64_t rank, const float *a,
                  const float *b, float scale, int64_t first, int64_t end);

}  // namespace ckernels
