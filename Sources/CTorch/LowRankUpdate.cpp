// LoRA's path as one autograd node that adds into the projection's output (Hu et al. 2021, eq. 3).
#include <torch/csrc/autograd/custom_function.h>

#include "Bridge.hpp"
#include "Dropout.hpp"
#include "Precision.hpp"

using namespace ctorch;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

/// y += s · drop(x) Aᵀ Bᵀ, with x [tokens, in], A [r, in], B [out, r].
///
/// Keeps x, which the projections of one input share, and drop(x) Aᵀ, r numbers a token; no matrix of the
/// output's size is made.
struct LowRankUpdate : public Function<LowRankUpdate> {
    static at::Tensor forward(AutogradContext *context, at::Tensor y, const at::Tensor &x, const at::Tensor &a,
                              const at::Tensor &b, double scale, double dropout, int64_t seed) {
        at::Tensor input = dropout > 0 ? dropped(x, dropout, static_cast<uint64_t>(seed)) : x;
        at::Tensor low = at::mm(input, a.t());
        y.addmm_(low, b.t(), 1, scale);
        context->mark_dirty({y});
        context->save_for_backward({x, a, b, low});
        context->saved_data["scale"] = scale;
        context->saved_data["dropout"] = dropout;
        context->saved_data["seed"] = seed;
        return y;
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        auto saved = context->get_saved_variables();
        const at::Tensor &x = saved[0], &a = saved[1], &b = saved[2], &low = saved[3], &gradient = gradients[0];
        double scale = context->saved_data["scale"].toDouble(), dropout = context->saved_data["dropout"].toDouble();
        auto seed = static_cast<uint64_t>(context->saved_data["seed"].toInt());
        at::Tensor to_x, to_a, to_b;
        if (context->needs_input_grad(3)) to_b = at::mm(gradient.t(), low).mul_(scale);
        at::Tensor to_low = at::mm(gradient, b).mul_(scale);
        if (context->needs_input_grad(2)) {
            to_a = at::mm(to_low.t(), dropout > 0 ? dropped(x, dropout, seed) : x);
        }
        if (context->needs_input_grad(1)) {
            to_x = at::mm(to_low, a);
            if (dropout > 0) drop_in_place(to_x, dropout, seed);
        }
        return {gradient, to_x, to_a, to_b, at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

}  // namespace

extern "C" CTTensor *ct_low_rank_update(const CTTensor *y, const CTTensor *x, const CTTensor *a, const CTTensor *b,
                                        double scale, double dropout, uint64_t seed) {
    return tensor_or_error([&]() -> at::Tensor {
        // A narrower base decides, while what is trained stays wide.
        at::ScalarType type = compute_type(unbox(y));
        at::Tensor output = in_type(unbox(y), type), input = in_type(unbox(x), type);
        at::Tensor first = in_type(unbox(a), type), second = in_type(unbox(b), type);
        WithoutAutocast guard;
        auto shape = output.sizes().vec();
        at::Tensor flat = output.reshape({-1, output.size(-1)});
        at::Tensor result = LowRankUpdate::apply(flat, input.reshape({-1, input.size(-1)}), first, second, scale,
                                                 dropout, static_cast<int64_t>(seed));
        return result.reshape(shape);
    });
}
