#include "ckernels/DecodeAttention.hpp"

#include <algorithm>
#include <vector>

#include "Simd.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/Parallel.hpp"
#include "ckernels/SoftmaxRow.hpp"

namespace {

using ckernels::ScoreBias;
using ckernels::Start;

/// Minimum multiplications per thread.
constexpr int64_t grain = 32768;

/// y [width] = p [keys] V [keys, width], with the sums in registers.
template <int width>
inline __attribute__((always_inline)) void weighted_columns(const float *p, const float *v, int64_t stride, int64_t keys,
                                                            float *y) {
    float sums[width] = {};
    for (int64_t j = 0; j < keys; ++j) {
        for (int k = 0; k < width; ++k) sums[k] += p[j] * v[j * stride + k];
    }
    for (int k = 0; k < width; ++k) y[k] = sums[k];
}

/// y [size] = p [keys] V [keys, size].
CK_CLONES void weighted_sum(const float *p, const float *v, int64_t stride, int64_t keys, int64_t size, float *y) {
    int64_t start = 0;
    for (; start + 32 <= size; start += 32) weighted_columns<32>(p, v + start, stride, keys, y + start);
    for (; start + 8 <= size; start += 8) weighted_columns<8>(p, v + start, stride, keys, y + start);
    for (; start < size; ++start) weighted_columns<1>(p, v + start, stride, keys, y + start);
}

/// Vectors of one head, `stride` floats apart.
struct Vectors {
    const float *data;
    int64_t stride;
};

/// y [queries, size] = softmax(scale · q kᵀ + bias) v of one head; `scores` has room for queries · keys floats.
void attend(const Vectors &k, const Vectors &v, int64_t keys, const float *q, int64_t queries, int64_t size,
            const ScoreBias &bias, float scale, float *scores, float *y) {
    ckernels::multiply_few_part(k.data, k.stride, q, queries, size, scores, keys, nullptr, Start::zero, 0, keys);
    for (int64_t query = 0; query < queries; ++query) {
        float *own = scores + query * keys;
        ckernels::softmax_row(own, bias.data ? bias.data + query * bias.query_stride : nullptr, bias.key_stride, scale, keys);
        weighted_sum(own, v.data, v.stride, keys, size, y + query * size);
    }
}

}  // namespace

namespace ckernels {

void decode_attention(const DecodeSizes &sizes, const float *q, const HeadsView &k, const HeadsView &v, const ScoreBias &bias,
                      float scale, float *y) {
    const auto [batch, heads, queries, keys, size] = sizes;
    parallel_for(0, batch * heads, std::max<int64_t>(1, grain / (queries * keys * size)), [&](int64_t begin, int64_t end) {
        std::vector<float> scores(static_cast<size_t>(queries * keys));
        for (int64_t item = begin; item < end; ++item) {
            const int64_t row = item / heads, head = item % heads;
            const ScoreBias own{bias.data ? bias.data + row * bias.batch_stride + head * bias.head_stride : nullptr, 0, 0,
                                bias.query_stride, bias.key_stride};
            attend({k.data + row * k.batch_stride + head * k.head_stride, k.token_stride},
                   {v.data + row * v.batch_stride + head * v.head_stride, v.token_stride}, keys, q + item * queries * size,
                   queries, size, own, scale, scores.data(), y + item * queries * size);
        }
    });
}

void decode_sequences(const SequenceSizes &sizes, const float *q, const CachedTokens *sequences, int64_t count, float scale,
                      float *y) {
    const auto [heads, key_heads, size, bias_stride] = sizes;
    const int64_t queries = heads / key_heads, stride = key_heads * size;
    int64_t longest = 0, all = 0;
    for (int64_t i = 0; i < count; ++i) {
        longest = std::max(longest, sequences[i].columns);
        all += sequences[i].columns;
    }
    // Multiplications of an average item.
    const int64_t work = std::max<int64_t>(1, queries * size * all / std::max<int64_t>(1, count));
    parallel_for(0, count * key_heads, std::max<int64_t>(1, grain / work), [&](int64_t begin, int64_t end) {
        std::vector<float> scores(static_cast<size_t>(queries * longest));
        for (int64_t item = begin; item < end; ++item) {
            const CachedTokens &own = sequences[item / key_heads];
            const int64_t head = item % key_heads, first = (own.row * heads + head * queries) * size;
            const ScoreBias bias{own.bias ? own.bias + head * queries * bias_stride : nullptr, 0, 0, bias_stride, 1};
            attend({own.keys + head * size, stride}, {own.values + head * size, stride}, own.columns, q + first, queries, size,
                   bias, scale, scores.data(), y + first);
        }
    });
}

}  // namespace ckernels
