// Root-mean-square normalization with a gate as one autograd node, which saves its inputs and one float per group.
#include "ckernels/GatedNorm.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "Precision.hpp"

using namespace ctorch;

namespace {

class GatedNorm : public AutogradNode {
public:
    GatedNorm(int64_t groups, double epsilon, bool has_gate_first)
        : groups(groups), epsilon(epsilon), has_gate_first(has_gate_first) {}

    /// Of x and gate, both [tokens, groups · size], and the weight.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0];
        at::Tensor y = at::empty_like(x), inverse = at::empty({x.size(0), groups}, x.options().dtype(at::kFloat));
        if (!x.is_meta()) {
            with_type(x, [&](auto number) {
                using Number = decltype(number);
                ckernels::gated_norm(view<Number>(inputs), mutable_elements<Number>(y), mutable_floats(inverse));
            });
        }
        if (context) context->save({x, inputs[1], inputs[2], inverse});
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &x = saved[0], gradient = gradients[0].contiguous();
        at::Tensor to_x = at::empty_like(x), to_gate = at::empty_like(x), to_weight;
        if (context.needs_gradient(2)) to_weight = at::empty_like(saved[2]);
        if (x.is_meta()) return {to_x, to_gate, to_weight};
        with_type(x, [&](auto number) {
            using Number = decltype(number);
            ckernels::gated_norm_backward(view<Number>(saved), elements<Number>(gradient), floats(saved[3]),
                                          mutable_elements<Number>(to_x), mutable_elements<Number>(to_gate),
                                          to_weight.defined() ? mutable_floats(to_weight) : nullptr);
        });
        return {to_x, to_gate, to_weight};
    }

private:
    int64_t groups;
    double epsilon;
    bool has_gate_first;

    /// Calls the body with a value of x's element type.
    template <typename Body> static void with_type(const at::Tensor &x, Body body) {
        if (x.scalar_type() == at::kBFloat16) return body(ckernels::BFloat());
        body(0.0f);
    }

    template <typename Number> ckernels::GatedNorm<Number> view(const Tensors &inputs) const {
        const at::Tensor &x = inputs[0], &gate = inputs[1], &weight = inputs[2];
        const int64_t size = x.size(1) / groups;
        return {x.size(0),
                groups,
                size,
                has_gate_first,
                static_cast<float>(epsilon),
                elements<Number>(x),
                elements<Number>(gate),
                gate.stride(0),
                floats(weight),
                weight.numel() != size};
    }
};

}  // namespace

extern "C" CTTensor *ct_gated_norm(const CTTensor *x, const CTTensor *gate, const CTTensor *weight, int64_t groups,
                                   double epsilon, bool has_gate_first) {
    return tensor_or_error([&] {
        const at::Tensor input = unbox(x).contiguous(), scale = in_type(unbox(weight), at::kFloat).contiguous();
        at::Tensor by = in_type(unbox(gate), input.scalar_type());
        if (by.dim() == 2 && by.stride(1) != 1) by = by.contiguous();
        TORCH_CHECK(is_row_major(input) && input.dim() == 2 && by.sizes() == input.sizes() && groups > 0 &&
                        input.size(1) % groups == 0 &&
                        (scale.numel() == input.size(1) || scale.numel() * groups == input.size(1)),
                    "shape mismatch: a gated norm of ", input.sizes(), " by ", by.sizes());
        return applied(GatedNorm(groups, epsilon, has_gate_first), {input, by, scale});
    });
}
