// Attention of decode steps, with few queries per sequence, in fp32 on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// Whether `decode_attention` applies: no gradient is needed, and queries are few.
bool is_for_decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask);

/// softmax(scale · q kᵀ + mask) v with q [batch, heads, queries, size] and k, v [batch, heads, keys, size], which may
/// be views of a larger KV cache, and an optional mask that broadcasts to [batch, heads, queries, keys]. Returns
/// [batch, heads, queries, size].
at::Tensor decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask, double scale);

}  // namespace ctorch
