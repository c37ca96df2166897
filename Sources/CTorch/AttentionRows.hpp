// Attention over packed sequences by the CPU kernels that compute one sequence and key head per thread.
#pragma once

#include <ATen/core/Tensor.h>

#include "ckernels/AttentionTiles.hpp"

namespace ctorch {

using ckernels::AttentionSettings;

/// Whether the kernels below apply: fp32 or bf16 on the CPU, with a library for small single-threaded matmuls, and no
/// soft cap.
bool is_for_attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                           const AttentionSettings &);

/// y [queries, heads, size]; all contiguous. Dropout masks are the same as with libtorch's operations.
void attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                    const AttentionSettings &, at::Tensor &y);

/// Overwrites the gradients of q, k and v; accumulates into that of the bias where `to_bias` is defined.
void attention_rows_backward(const at::Tensor &gradient, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                             const at::Tensor &bias, const AttentionSettings &, at::Tensor &to_q, at::Tensor &to_k,
                             at::Tensor &to_v, at::Tensor &to_bias);

}  // namespace ctorch
