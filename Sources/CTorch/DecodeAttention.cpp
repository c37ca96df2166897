#include "DecodeAttention.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "Bridge.hpp"
#include "Elements.hpp"
#include "ckernels/DecodeAttention.hpp"

namespace {

constexpr int64_t most_queries = 16;

bool is_for_kernel(const at::Tensor &x) { return ctorch::is_float(x) && x.dim() == 4; }

ckernels::HeadsView view_of(const at::Tensor &x) { return {ctorch::floats(x), x.stride(0), x.stride(1), x.stride(2)}; }

}  // namespace

namespace ctorch {

bool is_for_decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask) {
    return is_for_kernel(q) && is_for_kernel(k) && is_for_kernel(v) && (!mask.defined() || is_for_kernel(mask)) &&
           q.numel() > 0 && q.size(2) <= most_queries && k.stride(3) == 1 && v.stride(3) == 1 && k.size(2) > 0 &&
           q.size(0) == k.size(0) && q.size(1) == k.size(1) && q.size(3) == k.size(3) && k.sizes() == v.sizes() &&
           !(at::GradMode::is_enabled() && (q.requires_grad() || k.requires_grad() || v.requires_grad()));
}

at::Tensor decode_attention(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &mask, double scale) {
    const ckernels::DecodeSizes sizes{q.size(0), q.size(1), q.size(2), k.size(2), q.size(3)};
    const at::Tensor input = q.contiguous();
    at::Tensor y = at::empty(input.sizes(), input.options());
    ckernels::ScoreBias bias;
    if (mask.defined()) {
        const at::Tensor wide = mask.expand({sizes.batch, sizes.heads, sizes.queries, sizes.keys});
        bias = {floats(wide), wide.stride(0), wide.stride(1), wide.stride(2), wide.stride(3)};
    }
    ckernels::decode_attention(sizes, floats(input), view_of(k), view_of(v), bias, static_cast<float>(scale), mutable_floats(y));
    return y;
}

}  // namespace ctorch

extern "C" int ct_write_columns(const CTTensor *cache, const CTTensor *given, int64_t column) {
    using ctorch::unbox;
    return ctorch::status_or_error([&] {
        const at::Tensor &to = unbox(cache), &x = unbox(given);
        TORCH_CHECK(to.dim() == 4 && x.dim() == 4 && x.size(0) == to.size(0) && x.size(1) == to.size(1) &&
                        x.size(3) == to.size(3) && column >= 0 && column + x.size(2) <= to.size(2),
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

extern "C" int ct_decode_sequences(const CTTensor *q, const CTTensor *k, const CTTensor *v, int count, const int64_t *rows,
                                   const CTTensor *const *key_caches, const CTTensor *const *value_caches, const int64_t *columns,
                                   const CTTensor *bias, int64_t window, double scale, const CTTensor *y) {
    using namespace ctorch;
    return status_or_error([&] {
        const at::Tensor queries = unbox(q).contiguous(), keys = unbox(k).contiguous(), values = unbox(v).contiguous();
        const at::Tensor &output = unbox(y);
        TORCH_CHECK(is_plain(queries) && is_plain(keys) && is_plain(values) && is_plain(output) && queries.dim() == 3 &&
                        keys.dim() == 3 && keys.sizes() == values.sizes() && output.sizes() == queries.sizes() &&
                        keys.size(0) == queries.size(0) && keys.size(2) == queries.size(2) && keys.size(1) > 0 &&
                        queries.size(1) % keys.size(1) == 0,
                    "can't attend with queries ", queries.sizes(), ", keys ", keys.sizes(), " and values ", values.sizes());
        const at::Tensor distances = bias ? unbox(bias).contiguous() : at::Tensor();
        TORCH_CHECK(!bias || (is_plain(distances) && distances.dim() == 2 && distances.size(0) == queries.size(1)),
                    "biases of shape ", bias ? distances.sizes() : at::IntArrayRef(), " don't fit ", queries.size(1), " heads");
        const int64_t heads = keys.size(1), size = keys.size(2), width = heads * size, farthest = bias ? distances.size(1) : 0;
        const size_t bytes = static_cast<size_t>(width) * sizeof(float);
        std::vector<ckernels::CachedTokens> sequences;
        sequences.reserve(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) {
            const at::Tensor &to_keys = unbox(key_caches[i]), &to_values = unbox(value_caches[i]);
            const int64_t row = rows[i], column = columns[i];
            TORCH_CHECK(is_plain(to_keys) && is_plain(to_values) && to_keys.numel() % width == 0 &&
                            to_keys.sizes() == to_values.sizes() && 0 <= row && row < keys.size(0) && 0 <= column &&
                            (column + 1) * width <= to_keys.numel(),
                        "can't write row ", row, " of ", keys.sizes(), " at column ", column, " of a KV cache of shape ",
                        to_keys.sizes());
            float *own_keys = mutable_floats(to_keys), *own_values = mutable_floats(to_values);
            std::memcpy(own_keys + column * width, floats(keys) + row * width, bytes);
            std::memcpy(own_values + column * width, floats(values) + row * width, bytes);
            const int64_t first = window > 0 ? std::max<int64_t>(0, column + 1 - window) : 0, seen = column + 1 - first;
            TORCH_CHECK(!bias || seen <= farthest, "biases of ", farthest, " distances don't fit ", seen, " columns");
            sequences.push_back({own_keys + first * width, own_values + first * width, seen, row,
                                 bias ? floats(distances) + (farthest - seen) : nullptr});
        }
        ckernels::decode_sequences({queries.size(1), heads, size, farthest}, floats(queries), sequences.data(), count,
                                   static_cast<float>(scale), mutable_floats(output));
    });
}

extern "C" CTTensor *ct_attend_sequences(const CTTensor *q, int count, const CTTensor *const *keys, const CTTensor *const *values,
                                         double scale) {
    using namespace ctorch;
    return tensor_or_error([&] {
        const at::Tensor queries = unbox(q).contiguous();
        TORCH_CHECK(is_plain(queries) && queries.dim() == 3 && queries.size(0) == count, "can't attend with queries ",
                    queries.sizes(), " of ", count, " sequences");
        std::vector<ckernels::CachedTokens> sequences;
        sequences.reserve(static_cast<size_t>(count));
        int64_t heads = 0;
        for (int i = 0; i < count; ++i) {
            const at::Tensor &k = unbox(keys[i]), &v = unbox(values[i]);
            TORCH_CHECK(is_plain(k) && is_plain(v) && k.dim() == 3 && k.sizes() == v.sizes() && k.size(0) > 0 && k.size(1) > 0 &&
                            k.size(2) == queries.size(2) && queries.size(1) % k.size(1) == 0 && (i == 0 || k.size(1) == heads),
                        "can't attend with queries ", queries.sizes(), ", keys ", k.sizes(), " and values ", v.sizes());
            heads = k.size(1);
            sequences.push_back({floats(k), floats(v), k.size(0), i});
        }
        at::Tensor y = at::empty(queries.sizes(), queries.options());
        if (count > 0) {
            ckernels::decode_sequences({queries.size(1), heads, queries.size(2)}, floats(queries), sequences.data(), count,
                                       static_cast<float>(scale), mutable_floats(y));
        }
        return y;
    });
}
