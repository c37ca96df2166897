// libtorch's own operations, one line each.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/add.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp_max.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/div.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/lt.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/multinomial.h>
#include <ATen/ops/narrow.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/permute.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/round.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <ATen/ops/split_with_sizes.h>
#include <ATen/ops/sqrt.h>
#include <ATen/ops/square.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/transpose.h>
#include <ATen/ops/where.h>

#include "Bridge.hpp"

using namespace ctorch;

namespace {

at::Generator generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

/// Random values are drawn on the CPU and copied, so that a seed gives the same values on every device.
template <typename Draw> void draw(at::Tensor &target, Draw body) {
    at::NoGradGuard guard;
    if (target.is_cpu()) {
        body(target);
    } else {
        at::Tensor host = at::empty(target.sizes(), target.options().device(at::kCPU));
        body(host);
        target.copy_(host);
    }
}

}  // namespace

extern "C" {

CTTensor *ct_unary(CTUnary operation, const CTTensor *tensor) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &x = unbox(tensor);
        switch (operation) {
            case CT_NEG: return at::neg(x);
            case CT_SQRT: return at::sqrt(x);
            case CT_RSQRT: return at::rsqrt(x);
            case CT_EXP: return at::exp(x);
            case CT_LOG: return at::log(x);
            case CT_TANH: return at::tanh(x);
            case CT_SIGMOID: return at::sigmoid(x);
            case CT_ABS: return at::abs(x);
            case CT_SQUARE: return at::square(x);
            case CT_ISFINITE: return at::isfinite(x);
            case CT_SIGN: return at::sign(x);
            case CT_ROUND: return at::round(x);
            case CT_SIN: return at::sin(x);
            case CT_COS: return at::cos(x);
            case CT_SOFTPLUS: return at::softplus(x);
        }
        TORCH_CHECK(false, "unknown operation");
    });
}

CTTensor *ct_binary(CTBinary operation, const CTTensor *a, const CTTensor *b) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &x = unbox(a), &y = unbox(b);
        switch (operation) {
            case CT_ADD: return at::add(x, y);
            case CT_SUB: return at::sub(x, y);
            case CT_MUL: return at::mul(x, y);
            case CT_DIV: return at::div(x, y);
            case CT_EQ: return at::eq(x, y);
            case CT_NE: return at::ne(x, y);
            case CT_LT: return at::lt(x, y);
            case CT_GT: return at::gt(x, y);
            case CT_MAXIMUM: return at::maximum(x, y);
            case CT_MINIMUM: return at::minimum(x, y);
        }
        TORCH_CHECK(false, "unknown operation");
    });
}

CTTensor *ct_binary_scalar(CTBinary operation, const CTTensor *a, double y) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &x = unbox(a);
        switch (operation) {
            case CT_ADD: return at::add(x, y);
            case CT_SUB: return at::sub(x, y);
            case CT_MUL: return at::mul(x, y);
            case CT_DIV: return at::div(x, y);
            case CT_EQ: return at::eq(x, y);
            case CT_NE: return at::ne(x, y);
            case CT_LT: return at::lt(x, y);
            case CT_GT: return at::gt(x, y);
            case CT_MAXIMUM: return at::clamp_min(x, y);
            case CT_MINIMUM: return at::clamp_max(x, y);
        }
        TORCH_CHECK(false, "unknown operation");
    });
}

CTTensor *ct_pow(const CTTensor *x, double exponent) {
    return tensor_or_error([&] { return at::pow(unbox(x), exponent); });
}

CTTensor *ct_activation(CTActivation kind, const CTTensor *x) {
    return tensor_or_error([&]() -> at::Tensor {
        switch (kind) {
            case CT_RELU: return at::relu(unbox(x));
            case CT_GELU: return at::gelu(unbox(x), "none");
            case CT_GELU_TANH: return at::gelu(unbox(x), "tanh");
            case CT_SILU: return at::silu(unbox(x));
        }
        TORCH_CHECK(false, "unknown activation");
    });
}

CTTensor *ct_matmul(const CTTensor *a, const CTTensor *b) {
    return tensor_or_error([&] { return at::matmul(unbox(a), unbox(b)); });
}

CTTensor *ct_embedding(const CTTensor *weight, const CTTensor *ids) {
    return tensor_or_error([&] { return at::embedding(unbox(weight), unbox(ids)); });
}

CTTensor *ct_sum(const CTTensor *x, const int64_t *axes, int count, bool keep) {
    return tensor_or_error([&] { return count == 0 ? at::sum(unbox(x)) : at::sum(unbox(x), shape_of(axes, count), keep); });
}

CTTensor *ct_mean(const CTTensor *x, const int64_t *axes, int count, bool keep) {
    return tensor_or_error([&] { return count == 0 ? at::mean(unbox(x)) : at::mean(unbox(x), shape_of(axes, count), keep); });
}

CTTensor *ct_max(const CTTensor *x) {
    return tensor_or_error([&] { return at::max(unbox(x)); });
}

CTTensor *ct_argmax(const CTTensor *x, int axis) {
    return tensor_or_error([&] { return at::argmax(unbox(x), axis); });
}

CTTensor *ct_softmax(const CTTensor *x, int axis) {
    return tensor_or_error([&] { return at::softmax(unbox(x), axis); });
}

CTTensor *ct_log_softmax(const CTTensor *x, int axis) {
    return tensor_or_error([&] { return at::log_softmax(unbox(x), axis); });
}

CTTensor *ct_cumsum(const CTTensor *x, int axis) {
    return tensor_or_error([&] { return at::cumsum(unbox(x), axis); });
}

int ct_topk(const CTTensor *x, int64_t k, int axis, CTTensor **values, CTTensor **indices) {
    return status_or_error([&] {
        auto result = at::topk(unbox(x), k, axis, true, true);
        *values = box(std::get<0>(result));
        *indices = box(std::get<1>(result));
    });
}

int ct_add_in_place(CTTensor *x, const CTTensor *y, double alpha) {
    return status_or_error([&] { x->value.add_(unbox(y), alpha); });
}

int ct_scale_in_place(CTTensor *x, double factor) {
    return status_or_error([&] { x->value.mul_(factor); });
}

int ct_fill(CTTensor *x, double value) {
    return status_or_error([&] { x->value.fill_(value); });
}

int ct_set_elements(CTTensor *x, const CTTensor *rows, const CTTensor *columns, double value) {
    return status_or_error([&] {
        at::Tensor values = at::full({}, value, x->value.options());
        x->value.index_put_({unbox(rows), unbox(columns)}, values);
    });
}

CTTensor *ct_reshape(const CTTensor *x, const int64_t *shape, int rank) {
    return tensor_or_error([&] { return at::reshape(unbox(x), shape_of(shape, rank)); });
}

CTTensor *ct_permute(const CTTensor *x, const int64_t *axes, int rank) {
    return tensor_or_error([&] { return at::permute(unbox(x), shape_of(axes, rank)); });
}

CTTensor *ct_transpose(const CTTensor *x, int a, int b) {
    return tensor_or_error([&] { return at::transpose(unbox(x), a, b); });
}

CTTensor *ct_narrow(const CTTensor *x, int axis, int64_t start, int64_t length) {
    return tensor_or_error([&] { return at::narrow(unbox(x), axis, start, length); });
}

int ct_split(const CTTensor *x, int axis, const int64_t *lengths, int count, CTTensor **parts) {
    return status_or_error([&] {
        auto made = at::split_with_sizes(unbox(x), shape_of(lengths, count), axis);
        for (int i = 0; i < count; ++i) parts[i] = box(made[static_cast<size_t>(i)]);
    });
}

CTTensor *ct_expand(const CTTensor *x, const int64_t *shape, int rank) {
    return tensor_or_error([&] { return unbox(x).expand(shape_of(shape, rank)); });
}

CTTensor *ct_cat(CTTensor *const *tensors, int count, int axis) {
    return tensor_or_error([&] {
        std::vector<at::Tensor> list;
        list.reserve(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) list.push_back(unbox(tensors[i]));
        return at::cat(list, axis);
    });
}

CTTensor *ct_index_select(const CTTensor *x, int axis, const CTTensor *ids) {
    return tensor_or_error([&] { return at::index_select(unbox(x), axis, unbox(ids)); });
}

CTTensor *ct_index_copy(const CTTensor *x, int axis, const CTTensor *ids, const CTTensor *source) {
    return tensor_or_error([&] { return at::index_copy(unbox(x), axis, unbox(ids), unbox(source)); });
}

CTTensor *ct_gather(const CTTensor *x, int axis, const CTTensor *ids) {
    return tensor_or_error([&] { return at::gather(unbox(x), axis, unbox(ids)); });
}

CTTensor *ct_where(const CTTensor *condition, const CTTensor *a, const CTTensor *b) {
    return tensor_or_error([&] { return at::where(unbox(condition), unbox(a), unbox(b)); });
}

CTTensor *ct_float8_values(const CTTensor *codes) {
    return tensor_or_error([&] { return unbox(codes).view(at::kFloat8_e4m3fn).to(at::kFloat); });
}

CTTensor *ct_flip(const CTTensor *x, int axis) {
    return tensor_or_error([&] { return at::flip(unbox(x), {axis}); });
}

int ct_uniform(CTTensor *x, double low, double high, uint64_t seed) {
    return status_or_error([&] { draw(x->value, [&](at::Tensor &target) { target.uniform_(low, high, generator(seed)); }); });
}

int ct_normal(CTTensor *x, double mean, double deviation, uint64_t seed) {
    return status_or_error(
        [&] { draw(x->value, [&](at::Tensor &target) { target.normal_(mean, deviation, generator(seed)); }); });
}

CTTensor *ct_multinomial(const CTTensor *probabilities, uint64_t seed) {
    return tensor_or_error([&] {
        at::Tensor p = unbox(probabilities).cpu();
        return at::multinomial(p, 1, false, generator(seed)).to(unbox(probabilities).device());
    });
}

CTTensor *ct_random_permutation(int64_t count, uint64_t seed) {
    return tensor_or_error([&] { return at::randperm(count, generator(seed), at::TensorOptions().dtype(at::kLong)); });
}

CTTensor *ct_lerp(const CTTensor *start, const CTTensor *end, double weight) {
    return tensor_or_error([&] { return at::lerp(unbox(start), unbox(end), weight); });
}

CTTensor *ct_random_integers(int64_t count, uint64_t seed) {
    return tensor_or_error([&] {
        return at::randint(0, std::numeric_limits<int64_t>::max(), {count}, generator(seed),
                           at::TensorOptions().dtype(at::kLong));
    });
}
}
