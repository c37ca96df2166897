// Normalization, gated activation, bottleneck adapters and dropout as single autograd nodes: each saves its input
// alone and recomputes the rest in the backward pass, where libtorch's compositions save every intermediate.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_fused_rms_norm.h>
#include <ATen/ops/_fused_rms_norm_backward.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/gelu_backward.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>
#include <ATen/ops/threshold_backward.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Dropout.hpp"
#include "Precision.hpp"
#include "RowKernels.hpp"

using namespace ctorch;

namespace {

/// y = x / sqrt(mean(x²) + ε) · (o + w) over the last axis (Zhang & Sennrich 2019, eq. 4); the offset o is 0, or 1 in
/// Gemma. Saves x and one float per row.
class RMSNorm : public AutogradNode {
public:
    RMSNorm(double epsilon, double offset) : epsilon(epsilon), offset(offset) {}

    /// Of x and w.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0], &weight = inputs[1];
        if (is_for_rows(x, weight)) {
            at::Tensor y = at::empty_like(x), inverse = at::empty({x.numel() / x.size(-1)}, x.options().dtype(at::kFloat));
            rms_norm_rows(x, scale_of(weight, offset, inverse), static_cast<float>(epsilon), y, inverse);
            if (context) context->save({x, weight, inverse});
            return {y};
        }
        if (is_for_gpu(x, weight, offset)) {
            auto [y, inverse] = at::_fused_rms_norm(x, weight.sizes(), weight, epsilon);
            if (context) context->save({x, weight, inverse});
            return {y};
        }
        // Statistics in fp32 at least, as half-precision models are trained.
        at::Tensor wide = x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
        at::Tensor inverse = wide.square().mean(-1, true).add_(epsilon).rsqrt_();
        if (context) context->save({x, weight, inverse});
        // With an offset, rounding to the stored type comes last.
        if (offset != 0) return {(wide * inverse).mul_(scale_of(weight, offset, wide)).to(x.scalar_type())};
        return {(wide * inverse).to(weight.scalar_type()).mul_(weight)};
    }

    /// o + w, [size], in the type of `like`.
    static at::Tensor scale_of(const at::Tensor &weight, double offset, const at::Tensor &like) {
        at::Tensor typed = weight.to(like.scalar_type());
        return offset != 0 ? typed + offset : typed;
    }

    static std::vector<int64_t> rows_shape(const at::Tensor &x) {
        std::vector<int64_t> shape = x.sizes().vec();
        shape.back() = 1;
        return shape;
    }

    static bool is_for_rows(const at::Tensor &x, const at::Tensor &weight) {
        return have_row_kernels(x, weight) && x.size(-1) == weight.numel() && x.size(-1) > 0;
    }

    /// libtorch has a fused kernel there.
    static bool is_for_gpu(const at::Tensor &x, const at::Tensor &weight, double offset) {
        return x.is_cuda() && offset == 0 && x.scalar_type() == weight.scalar_type();
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        if (is_for_gpu(saved[0], saved[1], offset)) {
            auto [to_x, to_weight] =
                at::_fused_rms_norm_backward(gradients[0].contiguous(), saved[0], saved[1].sizes(), saved[2], saved[1],
                                             {context.needs_gradient(0), context.needs_gradient(1)});
            return {to_x, to_weight};
        }
        if (is_for_rows(saved[0], saved[1]) && !context.needs_gradient(1)) {
            at::Tensor gradient = gradients[0].contiguous(), to_x = at::empty_like(gradient);
            rms_norm_rows_backward(gradient, saved[0], scale_of(saved[1], offset, saved[2]), saved[2], to_x);
            return {to_x, at::Tensor()};
        }
        at::Tensor wide = saved[0].to(saved[2].scalar_type());
        const at::Tensor &weight = saved[1];
        // The row kernels save one float per row, without the last axis.
        at::Tensor inverse = saved[2].dim() == wide.dim() ? saved[2] : saved[2].view(rows_shape(wide));
        at::Tensor gradient = gradients[0].to(inverse.scalar_type());
        at::Tensor normalized = wide * inverse;
        at::Tensor to_weight;
        if (context.needs_gradient(1)) {
            to_weight = (gradient * normalized).reshape({-1, weight.size(0)}).sum(0).to(weight.scalar_type());
        }
        at::Tensor to_x;
        if (context.needs_gradient(0)) {
            at::Tensor weighted = gradient * (offset != 0 ? scale_of(weight, offset, inverse) : weight);
            at::Tensor mean = (weighted * normalized).mean(-1, true);
            to_x = weighted.sub_(normalized.mul_(mean)).mul_(inverse).to(saved[0].scalar_type());
        }
        return {to_x, to_weight};
    }

private:
    double epsilon, offset;
};

at::Tensor activate(CTActivation kind, const at::Tensor &x) {
    switch (kind) {
        case CT_RELU: return at::relu(x);
        case CT_GELU: return at::gelu(x, "none");
        case CT_GELU_TANH: return at::gelu(x, "tanh");
        case CT_SILU: return at::silu(x);
    }
    TORCH_CHECK(false, "unknown activation");
}

at::Tensor activation_gradient(CTActivation kind, const at::Tensor &gradient, const at::Tensor &x) {
    switch (kind) {
        case CT_RELU: return at::threshold_backward(gradient, x, 0);
        case CT_GELU: return at::gelu_backward(gradient, x, "none");
        case CT_GELU_TANH: return at::gelu_backward(gradient, x, "tanh");
        case CT_SILU: return at::silu_backward(gradient, x);
    }
    TORCH_CHECK(false, "unknown activation");
}

/// y = f(gate) ⊙ up (Shazeer 2020). Saves gate and up; f(gate) is recomputed.
class GatedActivation : public AutogradNode {
public:
    explicit GatedActivation(CTActivation kind) : kind(kind) {}

    /// Of gate and up.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &gate = inputs[0], &up = inputs[1];
        if (context) context->save({gate, up});
        if (is_for_rows(gate, up)) {
            at::Tensor y = at::empty_like(gate);
            gate_rows(kind, gate, up, y);
            return {y};
        }
        return {activate(kind, gate).mul_(up)};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        if (is_for_rows(saved[0], saved[1])) {
            at::Tensor gradient = gradients[0].contiguous();
            at::Tensor to_gate = at::empty_like(gradient), to_up = at::empty_like(gradient);
            gate_rows_backward(kind, gradient, saved[0], saved[1], to_gate, to_up);
            return {to_gate, to_up};
        }
        at::Tensor to_up = activate(kind, saved[0]).mul_(gradients[0]);
        at::Tensor to_gate = activation_gradient(kind, gradients[0] * saved[1], saved[0]);
        return {to_gate, to_up};
    }

private:
    CTActivation kind;

    bool is_for_rows(const at::Tensor &gate, const at::Tensor &up) const {
        return has_gate_kernel(kind) && have_row_kernels(gate, up) && gate.sizes() == up.sizes();
    }
};

/// y + s · (f(x Dᵀ + d) Uᵀ + u) with x, y [tokens, size], D [r, size], U [size, r] (Houlsby et al. 2019); x defaults
/// to y. Saves x and r floats per token, and allocates no other matrix of the output's size.
class Bottleneck : public AutogradNode {
public:
    /// - Parameter factor: s, unless it is learned.
    Bottleneck(double factor, CTActivation kind) : factor(factor), kind(kind) {}

    /// Of y, x, D, d, U, u and s; x and s may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &y = inputs[0], &x = inputs[1], &down = inputs[2], &down_bias = inputs[3], &up = inputs[4],
                         &up_bias = inputs[5], &learned = inputs[6];
        const at::Tensor &input = x.defined() ? x : y;
        is_parallel = x.defined();
        if (learned.defined() && !learned.is_meta()) factor = learned.item<double>();
        at::Tensor low = at::addmm(down_bias, input, down.t());
        at::Tensor active = activate(kind, low);
        if (context) context->save({input, down, up, up_bias, low});
        return {at::addmm(y, active, up.t(), 1, factor).add_(up_bias, factor)};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &input = saved[0], &down = saved[1], &up = saved[2], &low = saved[4], &gradient = gradients[0];
        at::Tensor to_y = gradient, to_x, to_down, to_down_bias, to_up, to_up_bias, to_scale;
        at::Tensor active = activate(kind, low), to_active = at::mm(gradient, up), summed = gradient.sum(0);
        if (context.needs_gradient(4)) to_up = at::mm(gradient.t(), active).mul_(factor);
        if (context.needs_gradient(5)) to_up_bias = summed * factor;
        if (context.needs_gradient(6)) {
            to_scale = ((to_active * active).sum() + (summed * saved[3]).sum()).reshape({1});
        }
        at::Tensor to_low = activation_gradient(kind, to_active.mul_(factor), low);
        if (context.needs_gradient(2)) to_down = at::mm(to_low.t(), input);
        if (context.needs_gradient(3)) to_down_bias = to_low.sum(0);
        if (is_parallel) {
            if (context.needs_gradient(1)) to_x = at::mm(to_low, down);
        } else if (context.needs_gradient(0)) {
            to_y = at::addmm(gradient, to_low, down);
        }
        return {to_y, to_x, to_down, to_down_bias, to_up, to_up_bias, to_scale};
    }

private:
    double factor;
    CTActivation kind;
    /// Whether x is given.
    bool is_parallel = false;
};

/// y = x ⊙ mask / (1 − p). The mask is a function of (seed, position): nothing is saved, and the backward pass
/// regenerates it.
class Dropout : public AutogradNode {
public:
    Dropout(double probability, uint64_t seed) : probability(probability), seed(seed) {}

    /// Of x.
    Tensors forward(NodeContext *, const Tensors &inputs) override { return {dropped(inputs[0], probability, seed)}; }

    Tensors backward(NodeContext &, const Tensors &gradients) override { return {dropped(gradients[0], probability, seed)}; }

private:
    double probability;
    uint64_t seed;
};

}  // namespace

extern "C" {

CTTensor *ct_rms_norm(const CTTensor *x, const CTTensor *weight, double epsilon, double offset) {
    return tensor_or_error([&] { return applied(RMSNorm(epsilon, offset), {unbox(x), unbox(weight)}); });
}

CTTensor *ct_layer_norm(const CTTensor *x, const CTTensor *weight, const CTTensor *bias, double epsilon) {
    return tensor_or_error([&] {
        // The kernels need one type; trained parameters may be wider than the base.
        at::ScalarType type = unbox(x).scalar_type();
        c10::optional<at::Tensor> scale, shift;
        if (weight != nullptr) scale = in_type(unbox(weight), type);
        if (bias != nullptr) shift = in_type(unbox(bias), type);
        WithoutAutocast guard;
        return at::layer_norm(unbox(x), {unbox(x).size(-1)}, scale, shift, epsilon);
    });
}

CTTensor *ct_gated_activation(CTActivation kind, const CTTensor *gate, const CTTensor *up) {
    return tensor_or_error([&] { return applied(GatedActivation(kind), {unbox(gate), unbox(up)}); });
}

CTTensor *ct_bottleneck(const CTTensor *y, const CTTensor *x, const CTTensor *down, const CTTensor *down_bias, const CTTensor *up,
                        const CTTensor *up_bias, const CTTensor *learned, double scale, CTActivation kind) {
    return tensor_or_error([&]() -> at::Tensor {
        auto flat = [](const at::Tensor &t) { return t.reshape({-1, t.size(-1)}); };
        at::ScalarType type = compute_type(unbox(y));
        auto typed = [type](const CTTensor *t) { return in_type(unbox(t), type); };
        at::Tensor output = typed(y);
        at::Tensor input, factor;
        if (x != nullptr) input = flat(typed(x));
        if (learned != nullptr) factor = typed(learned);
        at::Tensor first = typed(down), first_bias = typed(down_bias), second = typed(up), second_bias = typed(up_bias);
        WithoutAutocast guard;
        return applied(Bottleneck(scale, kind), {flat(output), input, first, first_bias, second, second_bias, factor})
            .reshape(output.sizes());
    });
}

CTTensor *ct_dropout(const CTTensor *x, double probability, uint64_t seed) {
    return tensor_or_error([&] { return applied(Dropout(probability, seed), {unbox(x)}); });
}
}
