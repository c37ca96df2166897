// Attention of a few queries a row, as in a step of generation, in fp32 on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// Whether `decode_attention` takes these: no gradient is needed, and queries are few.
bool is_for_decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask);

/// softmax(scale · q kᵀ + mask) v with q [batch, heads, queries, size], k, v [batch, heads, keys, size], whose rows may lie
/// in larger buffers, and a mask that broadcasts to [batch, heads, queries, keys], or none. Returns [batch, heads, queries,
/// size].
at::Tensor decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask,
                            double scale);

}  // namespace ctorch
