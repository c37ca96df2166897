// Rotary position embeddings (RoPE) as one autograd node: it saves the cosines and sines, which all layers share, and
// allocates no matrix but its result. The gradient is rotated by the opposite angle.
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "RowKernels.hpp"

using namespace ctorch;

namespace {

/// Rotates the first 2p components of each head of x [tokens, heads, size] as p pairs (i, i + p) by the angles with
/// the given cosines and sines [tokens, p] (Su et al. 2021, eq. 34, with halves as pairs); the others pass through.
at::Tensor rotated(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, double direction) {
    int64_t pairs = cosines.size(1), rest = x.size(2) - 2 * pairs;
    at::Tensor result = at::empty(x.sizes(), x.options());
    if (have_row_kernels(x, cosines, sines)) {
        rotate_rows(x, cosines, sines, static_cast<float>(direction), result);
        return result;
    }
    at::Tensor cos = cosines.unsqueeze(1), sin = sines.unsqueeze(1);
    at::Tensor a = x.narrow(2, 0, pairs), b = x.narrow(2, pairs, pairs);
    at::Tensor to_a = result.narrow(2, 0, pairs), to_b = result.narrow(2, pairs, pairs);
    at::mul_out(to_a, a, cos).addcmul_(b, sin, -direction);
    at::mul_out(to_b, b, cos).addcmul_(a, sin, direction);
    if (rest > 0) result.narrow(2, 2 * pairs, rest).copy_(x.narrow(2, 2 * pairs, rest));
    return result;
}

/// Of x, cosines and sines.
struct Rotary : AutogradNode {
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        if (context) context->save({inputs[1], inputs[2]});
        return {rotated(inputs[0], inputs[1], inputs[2], 1)};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        return {rotated(gradients[0], saved[0], saved[1], -1)};
    }
};

}  // namespace

extern "C" CTTensor *ct_rotary(const CTTensor *x, const CTTensor *cosines, const CTTensor *sines) {
    return tensor_or_error([&] {
        const at::Tensor &t = unbox(x), &c = unbox(cosines);
        TORCH_CHECK(t.dim() == 3 && c.dim() == 2 && c.size(0) == t.size(0) && 2 * c.size(1) <= t.size(2),
                    "shape mismatch: RoPE over ", t.sizes(), " with cosines ", c.sizes());
        return applied(Rotary(), {t, c, unbox(sines)});
    });
}
