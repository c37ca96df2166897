// Short causal convolutions of packed sequences with their activation as one autograd node, which saves its input alone.
#include "ckernels/ShortConvolution.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <utility>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"

using namespace ctorch;

namespace {

/// Calls the body with a value of x's element type.
template <typename Body> void with_type(const at::Tensor &x, Body body) {
    if (x.scalar_type() == at::kBFloat16) return body(ckernels::BFloat());
    body(0.0f);
}

/// Whether the kernels read such rows: fp32 or bf16 on the CPU (or the meta device) with contiguous columns.
bool has_rows(const at::Tensor &x) {
    return (x.is_cpu() || x.is_meta()) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) && x.dim() == 2 &&
           x.stride(1) == 1;
}

/// The kernel's view of x [tokens, channels], weight [channels, width], bias and the inputs before.
template <typename Number>
ckernels::ShortConvolution<Number> view(const std::vector<int64_t> &offsets, bool has_silu, const at::Tensor &x,
                                        const at::Tensor &weight, const at::Tensor &bias, const at::Tensor &before) {
    return {offsets,
            weight.size(0),
            weight.size(1),
            has_silu,
            elements<Number>(x),
            x.stride(0),
            before.defined() ? elements<Number>(before) : nullptr,
            floats(weight),
            bias.defined() ? floats(bias) : nullptr};
}

class Convolution : public AutogradNode {
public:
    /// - Parameter before: the inputs before the sequences, which have no gradient; may be undefined.
    Convolution(std::vector<int64_t> offsets, bool has_silu, at::Tensor before)
        : offsets(std::move(offsets)), has_silu(has_silu), before(std::move(before)) {}

    /// Of x, weight and bias, which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0];
        at::Tensor y = at::empty(x.sizes(), x.options());
        if (context) context->save(inputs);
        if (x.is_meta()) return {y};
        with_type(x, [&](auto number) {
            using Number = decltype(number);
            ckernels::short_convolution(view<Number>(offsets, has_silu, x, inputs[1], inputs[2], before),
                                        mutable_elements<Number>(y));
        });
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &x = saved[0], gradient = gradients[0].contiguous();
        at::Tensor to_x = at::empty(x.sizes(), x.options()), to_weight, to_bias;
        if (context.needs_gradient(1)) to_weight = at::empty_like(saved[1]);
        if (context.needs_gradient(2)) to_bias = at::empty_like(saved[2]);
        if (x.is_meta()) return {to_x, to_weight, to_bias};
        with_type(x, [&](auto number) {
            using Number = decltype(number);
            ckernels::short_convolution_backward(view<Number>(offsets, has_silu, x, saved[1], saved[2], before),
                                                 elements<Number>(gradient), mutable_elements<Number>(to_x),
                                                 to_weight.defined() ? mutable_floats(to_weight) : nullptr,
                                                 to_bias.defined() ? mutable_floats(to_bias) : nullptr);
        });
        return {to_x, to_weight, to_bias};
    }

private:
    std::vector<int64_t> offsets;
    bool has_silu;
    at::Tensor before;
};

/// The tensors of a convolution, as the kernels read them.
struct Inputs {
    at::Tensor x, weight, bias, before;

    Inputs(const CTTensor *x, const CTTensor *weight, const CTTensor *bias, const CTTensor *before, const int64_t *offsets,
           int rows)
        : x(unbox(x)), weight(unbox(weight)), bias(unbox(bias)), before(unbox(before)) {
        if (this->x.dim() == 2 && this->x.stride(1) != 1) this->x = this->x.contiguous();
        const int64_t channels = this->weight.size(0);
        this->weight = this->weight.reshape({channels, -1}).to(at::kFloat).contiguous();
        if (this->bias.defined()) this->bias = this->bias.to(at::kFloat).contiguous();
        const int64_t width = this->weight.size(1);
        if (this->before.defined()) this->before = this->before.detach().to(this->x.scalar_type()).contiguous();
        TORCH_CHECK(has_rows(this->x) && this->x.size(1) == channels && this->x.size(0) == offsets[rows] &&
                        (!this->bias.defined() || this->bias.numel() == channels) &&
                        (!this->before.defined() || this->before.numel() == rows * (width - 1) * channels),
                    "shape mismatch: a convolution of ", this->x.sizes(), " by ", this->weight.sizes());
    }
};

}  // namespace

extern "C" {

CTTensor *ct_short_convolution(const CTTensor *x, const CTTensor *weight, const CTTensor *bias, const CTTensor *before,
                               const int64_t *offsets, int rows, bool has_silu) {
    return tensor_or_error([&] {
        const Inputs inputs(x, weight, bias, before, offsets, rows);
        return applied(Convolution({offsets, offsets + rows + 1}, has_silu, inputs.before),
                       {inputs.x, inputs.weight, inputs.bias});
    });
}

CTTensor *ct_last_inputs(const CTTensor *x, int64_t width, const CTTensor *before, const int64_t *offsets, int rows) {
    return tensor_or_error([&] {
        const at::NoGradGuard guard;
        const at::Tensor taps = at::empty({unbox(x).size(1), width}, unbox(x).options().dtype(at::kFloat));
        const CTTensor weight{taps};
        const Inputs inputs(x, &weight, nullptr, before, offsets, rows);
        at::Tensor after = at::empty({rows, width - 1, inputs.x.size(1)}, inputs.x.options());
        if (after.is_meta()) return after;
        with_type(after, [&](auto number) {
            using Number = decltype(number);
            ckernels::last_inputs(
                view<Number>({offsets, offsets + rows + 1}, false, inputs.x, inputs.weight, at::Tensor(), inputs.before),
                mutable_elements<Number>(after));
        });
        return after;
    });
}
}
