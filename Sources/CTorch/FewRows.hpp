// Products with few rows in fp32 on the CPU, as decoding makes them: one pass over the matrix at the rate of memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// Rows that these kernels are for; with more, blocked products win.
constexpr int64_t few_rows = 32;

/// Outputs that kernels take at a time divide this.
constexpr int64_t outputs_of_blocks = 12;
/// Elements of a matrix that are worth a thread.
constexpr int64_t elements_of_a_thread = 65536;

/// What a product's sums are added to.
enum class Start { zero, bias, output };

/// y [rows, outputs] = start + x [rows, inputs] Wᵀ, all end to end but for W, whose rows lie `stride` apart. On the thread
/// that calls; for outputs first ..< end alone.
void multiply_few_part(const float *weight, int64_t stride, const float *x, int64_t rows, int64_t inputs, float *y,
                       int64_t outputs, const float *bias, Start start, int64_t first, int64_t end);

/// x [rows, inputs] Wᵀ + b on all threads.
at::Tensor multiply_few(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias);

/// Whether `multiply_few` takes them and is the faster way: nothing needs a gradient, and rows are few.
bool is_for_few_rows(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias);

/// y += s · x Aᵀ Bᵀ on the thread that calls, with y [rows, outputs], x [rows, inputs], A [rank, inputs] and B [outputs,
/// rank], all end to end; for outputs first ..< end alone.
void add_low_rank(float *y, const float *x, int64_t rows, int64_t inputs, int64_t outputs, int64_t rank, const float *a,
                  const float *b, float scale, int64_t first, int64_t end);

}  // namespace ctorch
