// A linear projection as one autograd node, with whichever matmul is fastest (`Blas.hpp`).
#include <ATen/ops/linear.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "FewRows.hpp"
#include "MatrixProduct.hpp"
#include "Precision.hpp"
#include "Recomputation.hpp"

using namespace ctorch;

namespace {

/// y = x Wᵀ + b with x [tokens, in], W [out, in]. Saves x only if the weight is trained.
struct Projection : AutogradNode {
    /// Of x, W and b, which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0], &weight = inputs[1], &bias = inputs[2];
        if (context) context->save({weight.requires_grad() ? x : at::Tensor(), weight});
        at::Tensor start;
        if (bias.defined()) start = bias.expand({x.size(0), weight.size(0)}).contiguous();
        return {blas_product(x, weight.t(), start)};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        at::Tensor gradient = readable(gradients[0]), to_x, to_weight, to_bias;
        if (context.needs_gradient(0)) to_x = blas_product(gradient, saved[1]);
        if (context.needs_gradient(1)) to_weight = blas_product(gradient.t(), saved[0]);
        if (context.needs_gradient(2)) to_bias = gradient.sum(0);
        return {to_x, to_weight, to_bias};
    }
};

/// With fewer rows than this, a matmul is bandwidth-bound.
constexpr int64_t fewest_rows = 16;

bool is_for_blas(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
    auto is_float = [](const at::Tensor &t) { return t.is_cpu() && t.scalar_type() == at::kFloat; };
    return is_float(x) && is_float(weight) && weight.dim() == 2 && x.dim() >= 1 && x.size(-1) == weight.size(1) &&
           x.numel() >= fewest_rows * weight.size(1) && weight.size(1) > 0 &&
           (!bias.defined() || (is_float(bias) && bias.dim() == 1 && bias.size(0) == weight.size(0))) &&
           BlasMatrix::fits(weight) && ckernels::has_fast_blas() && !is_half(compute_type(x));
}

}  // namespace

extern "C" CTTensor *ct_linear(const CTTensor *x, const CTTensor *weight, const CTTensor *bias) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &input = unbox(x), &w = unbox(weight);
        if (recomputation_is_complete()) return unasked_product(input, w.size(0));
        if (is_for_few_rows(input, w, unbox(bias)) && !is_half(compute_type(input))) {
            return multiply_few(input, w, unbox(bias));
        }
        // With a frozen weight that isn't converted, the node saves that weight alone.
        KeepsSaved guard(!w.requires_grad() && compute_type(input) == w.scalar_type());
        if (!is_for_blas(input, w, unbox(bias))) return at::linear(input, w, optional(bias));
        auto shape = input.sizes().vec();
        shape.back() = w.size(0);
        return applied(Projection(), {readable(input.reshape({-1, input.size(-1)})), w, unbox(bias)}).reshape(shape);
    });
}
