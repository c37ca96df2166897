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

/// Tokens whose values stay in the caches while the queries of a head read them.
constexpr int64_t block = 64;

/// Vectors of one head, `stride` floats apart.
struct Vectors {
    const float *data;
    int64_t stride;
};

/// y [QUERIES, width] += p [QUERIES, keys] V [keys, width], with the sums in registers. Meanwhile the following block is fetched:
/// a head's vectors lie apart, so that the processor doesn't see them coming.
template <int QUERIES, int width>
CK_INLINED void add_columns(const float *p, int64_t p_stride, const float *v, int64_t stride, int64_t keys, float *y,
                            int64_t y_stride) {
    float sums[QUERIES][width];
    for (int q = 0; q < QUERIES; ++q) {
        for (int k = 0; k < width; ++k) sums[q][k] = y[q * y_stride + k];
    }
    for (int64_t j = 0; j < keys; ++j) {
        for (int k = 0; k < width; k += 16) __builtin_prefetch(v + (j + block) * stride + k);
        for (int q = 0; q < QUERIES; ++q) {
            const float weight = p[q * p_stride + j];
            for (int k = 0; k < width; ++k) sums[q][k] += weight * v[j * stride + k];
        }
    }
    for (int q = 0; q < QUERIES; ++q) {
        for (int k = 0; k < width; ++k) y[q * y_stride + k] = sums[q][k];
    }
}

/// y [QUERIES, size] += p V.
template <int QUERIES>
CK_INLINED void add_rows(const float *p, int64_t p_stride, const Vectors &v, int64_t keys, int64_t size, float *y) {
    // As many sums as hide their latency, then smaller parts of the head.
    constexpr int width = QUERIES == 1 ? 64 : QUERIES == 2 ? 32 : 16;
    int64_t start = 0;
    for (; start + width <= size; start += width) {
        add_columns<QUERIES, width>(p, p_stride, v.data + start, v.stride, keys, y + start, size);
    }
    if (width > 32 && start + 32 <= size) {
        add_columns<QUERIES, 32>(p, p_stride, v.data + start, v.stride, keys, y + start, size);
        start += 32;
    }
    if (width > 16 && start + 16 <= size) {
        add_columns<QUERIES, 16>(p, p_stride, v.data + start, v.stride, keys, y + start, size);
        start += 16;
    }
    for (; start + 8 <= size; start += 8) add_columns<QUERIES, 8>(p, p_stride, v.data + start, v.stride, keys, y + start, size);
    for (; start < size; ++start) add_columns<QUERIES, 1>(p, p_stride, v.data + start, v.stride, keys, y + start, size);
}

/// y [queries, size] += p [queries, keys] V [keys, size], the rows of p `p_stride` apart.
CK_CLONES void add_weighted(const float *p, int64_t p_stride, const Vectors &v, int64_t keys, int64_t queries, int64_t size,
                            float *y) {
    int64_t q = 0;
    for (; q + 4 <= queries; q += 4) add_rows<4>(p + q * p_stride, p_stride, v, keys, size, y + q * size);
    for (; q + 2 <= queries; q += 2) add_rows<2>(p + q * p_stride, p_stride, v, keys, size, y + q * size);
    for (; q < queries; ++q) add_rows<1>(p + q * p_stride, p_stride, v, keys, size, y + q * size);
}

/// y [queries, size] = softmax(scale · q kᵀ + bias) v of one head; `scores` has room for queries · keys floats.
void attend(const Vectors &k, const Vectors &v, int64_t keys, const float *q, int64_t queries, int64_t size,
            const ScoreBias &bias, float scale, float *scores, float *y) {
    // A few keys at a time, so that the following block is fetched meanwhile.
    const int64_t step = keys <= block ? keys : 24;
    for (int64_t start = 0; start < keys; start += step) {
        const int64_t end = std::min(start + step, keys);
        for (int64_t j = std::min(start + block, keys); j < std::min(end + block, keys); ++j) {
            for (int64_t i = 0; i < size; i += 16) __builtin_prefetch(k.data + j * k.stride + i);
        }
        ckernels::multiply_few_part(k.data, k.stride, q, queries, size, scores, keys, nullptr, Start::zero, start, end);
    }
    for (int64_t query = 0; query < queries; ++query) {
        ckernels::softmax_row(scores + query * keys, bias.data ? bias.data + query * bias.query_stride : nullptr, bias.key_stride,
                              scale, keys);
    }
    std::fill_n(y, queries * size, 0.0f);
    for (int64_t start = 0; start < keys; start += block) {
        add_weighted(scores + start, keys, {v.data + start * v.stride, v.stride}, std::min(block, keys - start), queries, size,
                     y);
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
