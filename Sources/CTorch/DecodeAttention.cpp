#include "DecodeAttention.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstring>

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
