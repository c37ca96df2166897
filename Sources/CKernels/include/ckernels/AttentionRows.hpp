// Attention over packed sequences, one sequence and key head per work item of a thread. `has_serial_blas` must hold.
#pragma once

#include "ckernels/AttentionTiles.hpp"

namespace ckernels {

/// A contiguous packed tensor [tokens, heads, size] of floats, or of BFloats.
struct PackedHeads {
    void *data;
    bool is_bf16;
    int64_t heads, size;
};

/// A bias or its gradient, [heads, queries, keys] with contiguous keys; `data` is NULL without one. The columns are
/// laid out for the longest prefix, unless it is by key (`AttentionSettings`).
struct AttentionBias {
    float *data = nullptr;
    int64_t head_stride = 0, query_stride = 0;
};

/// y [queries, heads, size] = softmax(scale · q kᵀ + bias) v, without a soft cap.
void attention_rows(const PackedHeads &q, const PackedHeads &k, const PackedHeads &v, const AttentionBias &bias,
                    const AttentionSettings &, const PackedHeads &y);

/// Overwrites the gradients of q, k and v; accumulates into that of the bias where it is given.
void attention_rows_backward(const PackedHeads &gradient, const PackedHeads &q, const PackedHeads &k, const PackedHeads &v,
                             const AttentionBias &bias, const AttentionSettings &, const PackedHeads &to_q,
                             const PackedHeads &to_k, const PackedHeads &to_v, const AttentionBias &to_bias);

}  // namespace ckernels
