#include "DecodeAttention.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstring>
#include <vector>

#include "Bridge.hpp"
#include "Clones.hpp"
#include "FewRows.hpp"
#include "Parallel.hpp"
#include "SoftmaxRow.hpp"

namespace {

constexpr int64_t most_queries = 16;
/// Minimum multiplications per thread.
constexpr int64_t grain = 32768;

/// y [size] = p [keys] V [keys, size].
CT_CLONES void weighted_sum(const float *p, const float *v, int64_t stride, int64_t keys, int64_t size, float *y) {
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

bool is_float(const at::Tensor &x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.dim() == 4; }
const float *floats(const at::Tensor &x) { return static_cast<const float *>(x.const_data_ptr()); }

}  // namespace

namespace ctorch {

bool is_for_decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask) {
    return is_float(q) && is_float(k) && is_float(v) && (!mask.defined() || is_float(mask)) && q.numel() > 0 && q.size(2) <= most_queries &&
           k.stride(3) == 1 && v.stride(3) == 1 && k.size(2) > 0 && q.size(0) == k.size(0) && q.size(1) == k.size(1) &&
           q.size(3) == k.size(3) && k.sizes() == v.sizes() &&
           !(at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad()));
}

at::Tensor decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask,
                            double scale) {
    const int64_t heads = q.size(1), queries = q.size(2), size = q.size(3), keys = k.size(2);
    const at::Tensor input = q.contiguous();
    at::Tensor y = at::empty(input.sizes(), input.options());
    const at::Tensor bias = mask.defined() ? mask.expand({q.size(0), heads, queries, keys}) : mask;
    auto *out = static_cast<float *>(y.mutable_data_ptr());
    ctorch::parallel_for(0, q.size(0) * heads, std::max<int64_t>(1, grain / (queries * keys * size)), [&](int64_t begin, int64_t end) {
        std::vector<float> scores(static_cast<size_t>(queries * keys));
        for (int64_t item = begin; item < end; ++item) {
            const int64_t row = item / heads, head = item % heads;
            multiply_few_part(floats(k) + row * k.stride(0) + head * k.stride(1), k.stride(2),
                              floats(input) + item * queries * size, queries, size, scores.data(), keys, nullptr,
                              Start::zero, 0, keys);
            for (int64_t query = 0; query < queries; ++query) {
                float *own = scores.data() + query * keys;
                const float *added = bias.defined() ? floats(bias) + row * bias.stride(0) + head * bias.stride(1) +
                                                          query * bias.stride(2)
                                                    : nullptr;
                softmax_row(own, added, bias.defined() ? bias.stride(3) : 0, static_cast<float>(scale), keys);
                weighted_sum(own, floats(v) + row * v.stride(0) + head * v.stride(1), v.stride(2), keys, size,
                             out + (item * queries + query) * size);
            }
        }
    });
    return y;
}

}  // namespace ctorch

extern "C" int ct_write_columns(const CTTensor *cache, const CTTensor *given, int64_t column) {
    using ctorch::unbox;
    return ctorch::status_or_error([&] {
        const at::Tensor &to = unbox(cache), &x = unbox(given);
        TORCH_CHECK(to.dim() == 4 && x.dim() == 4 && x.size(0) == to.size(0) && x.size(1) == to.size(1) && x.size(3) == to.size(3) &&
                        column >= 0 && column + x.size(2) <= to.size(2),
                    "can't write ", x.sizes(), " at column ", column, " of a KV cache of shape ", to.sizes());
        if (!x.is_cpu() || !to.is_cpu() || x.scalar_type() != to.scalar_type() || x.stride(3) != 1 || !to.is_contiguous() ||
            (at::GradMode::is_enabled() && x.requires_grad())) {
            to.narrow(2, column, x.size(2)).copy_(x);
            return;
        }
        const size_t element = x.element_size(), bytes = static_cast<size_t>(x.size(3)) * element;
        const auto *from = static_cast<const char *>(x.const_data_ptr());
        auto *out = static_cast<char *>(to.mutable_data_ptr());
        const auto place = [element](int64_t i) { return static_cast<ptrdiff_t>(i) * static_cast<ptrdiff_t>(element); };
        for (int64_t row = 0; row < x.size(0); ++row) {
            for (int64_t head = 0; head < x.size(1); ++head) {
                char *line = out + place(((row * to.size(1) + head) * to.size(2) + column) * to.size(3));
                const char *source = from + place(row * x.stride(0) + head * x.stride(1));
                for (int64_t token = 0; token < x.size(2); ++token) {
                    std::memcpy(line + place(token * to.size(3)), source + place(token * x.stride(2)), bytes);
                }
            }
        }
    });
}
