// Attention of decode steps, with few queries per sequence.
#pragma once

#include <cstdint>

namespace ckernels {

/// x [batch, heads, tokens, size], whose last axis is contiguous, for example a view of a larger KV cache.
struct HeadsView {
    const float *data;
    int64_t batch_stride, head_stride, token_stride;
};

/// A bias [batch, heads, queries, keys]; broadcast axes have a stride of 0. `data` may be NULL.
struct ScoreBias {
    const float *data = nullptr;
    int64_t batch_stride = 0, head_stride = 0, query_stride = 0, key_stride = 0;
};

/// Sizes of q [batch, heads, queries, size] and of k and v [batch, heads, keys, size].
struct DecodeSizes {
    int64_t batch, heads, queries, keys, size;
};

/// y = softmax(scale · q kᵀ + bias) v, with contiguous q and y.
void decode_attention(const DecodeSizes &, const float *q, const HeadsView &k, const HeadsView &v, const ScoreBias &bias,
                      float scale, float *y);

/// A sequence's cached keys and values `[columns, key heads, size]`, contiguous, the row of its token in q and y, and the first
/// head's biases of the columns, or NULL.
struct CachedTokens {
    const float *keys, *values;
    int64_t columns, row;
    const float *bias = nullptr;
};

/// Sizes of q and y [rows, heads, size], in which `heads / key_heads` successive heads share a key head. The biases of two heads
/// are `bias_stride` floats apart.
struct SequenceSizes {
    int64_t heads, key_heads, size, bias_stride = 0;
};

/// The same for one token of each sequence, whose caches differ in length.
void decode_sequences(const SequenceSizes &, const float *q, const CachedTokens *sequences, int64_t count, float scale, float *y);

}  // namespace ckernels
