// Rotary position embeddings (RoPE) as one autograd node: it saves the cosines and sines, which all layers share, and
// allocates no matrix but its result. The gradient is rotated by the opposite angle.
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "RowKernels.hpp"

using namespace ctorch;

namespace {

/// Rotates the first 2p components of each head of x [tokens, heads, size] as p pairs by the angles with the given
/// cosines and sines [tokens, p]: (2i, 2i + 1) if interleaved, as in Su et al. 2021, eq. 34, otherwise (i, i + p). The
/// others pass through.
at::Tensor rotated(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, double direction, bool interleaved) {
    int64_t pairs = cosines.size(1), rest = x.size(2) - 2 * pairs;
    at::Tensor result = at::empty(x.sizes(), x.options());
    if (have_row_kernels(x, cosines, sines)) {
        rotate_rows(x, cosines, sines, static_cast<float>(direction), interleaved, result);
        return result;
    }
    at::Tensor cos = cosines.unsqueeze(1), sin = sines.unsqueeze(1);
    const auto part = [&](const at::Tensor &all, int64_t index) {
        return interleaved ? all.slice(2, index, 2 * pairs, 2) : all.narrow(2, index * pairs, pairs);
    };
    at::Tensor a = part(x, 0), b = part(x, 1), to_a = part(result, 0), to_b = part(result, 1);
    at::mul_out(to_a, a, cos).addcmul_(b, sin, -direction);
    at::mul_out(to_b, b, cos).addcmul_(a, sin, direction);
    if (rest > 0) result.narrow(2, 2 * pairs, rest).copy_(x.narrow(2, 2 * pairs, rest));
    return result;
}

/// Of x, cosines and sines.
struct Rotary : AutogradNode {
    explicit Rotary(bool interleaved) : interleaved(interleaved) {}

    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        if (context) context->save({inputs[1], inputs[2]});
        return {rotated(inputs[0], inputs[1], inputs[2], 1, interleaved)};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        return {rotated(gradients[0], saved[0], saved[1], -1, interleaved)};
    }

private:
    bool interleaved;
};

}  // namespace

extern "C" CTTensor *ct_rotary(const CTTensor *x, const CTTensor *cosines, const CTTensor *sines, bool interleaved) {
    return tensor_or_error([&] {
        const at::Tensor &t = unbox(x), &c = unbox(cosines);
        TORCH_CHECK(t.dim() == 3 && c.dim() == 2 && c.size(0) == t.size(0) && 2 * c.size(1) <= t.size(2),
                    "shape mismatch: RoPE over ", t.sizes(), " with cosines ", c.sizes());
        return applied(Rotary(interleaved), {t, c, unbox(sines)});
    });
}
