#include "ckernels/DecodeAttention.hpp"

#include <algorithm>
#include <vector>

#include "Simd.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/Parallel.hpp"
#include "ckernels/SoftmaxRow.hpp"

namespace {

/// Minimum multiplications per thread.
constexpr int64_t grain = 32768;

/// y [size] = p [keys] V [keys, size].
CK_CLONES void weighted_sum(const float *p, const float *v, int64_t stride, int64_t keys, int64_t size, float *y) {
    constexpr int width = 32;
    int64_t start = 0;
    for (; start + width <= size; start += width) {
        float sums[width] = {};
        for (int64_t j = 0; j < keys; ++j) {
            const float *row = v + j * stride + start;
            for (int k = 0; k < width; ++k) sums[k] += p[j] * row[k];
        }
        for (int k = 0; k < width; ++k) y[start + k] = sums[k];
    }
    for (; start < size; ++start) {
        float sum = 0;
        for (int64_t j = 0; j < keys; ++j) sum += p[j] * v[j * stride + start];
        y[start] = sum;
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
            multiply_few_part(k.data + row * k.batch_stride + head * k.head_stride, k.token_stride, q + item * queries * size,
                              queries, size, scores.data(), keys, nullptr, Start::zero, 0, keys);
            for (int64_t query = 0; query < queries; ++query) {
                float *own = scores.data() + query * keys;
                const float *added =
                    bias.data ? bias.data + row * bias.batch_stride + head * bias.head_stride + query * bias.query_stride
                              : nullptr;
                softmax_row(own, added, bias.key_stride, scale, keys);
                weighted_sum(own, v.data + row * v.batch_stride + head * v.head_stride, v.token_stride, keys, size,
                             y + (item * queries + query) * size);
            }
        }
    });
}

}  // namespace ckernels
