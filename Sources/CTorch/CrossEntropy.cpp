// Cross-entropy straight from hidden states: the matrix of logits never exists as a whole.
#include <torch/csrc/autograd/custom_function.h>

#include "Bridge.hpp"
#include "MemoryLog.hpp"
#include "Precision.hpp"

using namespace ctorch;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

/// Rows of logits that exist at a time: about 8 MB of them, which a processor's cache holds, or 256 MB on a GPU, where a
/// launch costs more; at least 16 rows so that the products stay wide.
int64_t chunk_rows(int64_t vocabulary, bool is_gpu) {
    return std::max<int64_t>(16, (is_gpu ? 256 << 20 : 8 << 20) / (4 * std::max<int64_t>(vocabulary, 1)));
}

/// Σ over rows of −log softmax(cap(c · h Wᵀ))[target], with h [n, d], W [vocabulary, d] and cap(s) = k · tanh(s / k)
/// where a soft cap k is given (Gemma 2).
///
/// With label smoothing ε the target is (1 − ε) of the one-hot and ε of the uniform distribution (Szegedy
/// et al. 2016). The gradients are made in the forward pass, while a chunk's logits are in the cache, and
/// only scaled in the backward pass, as the loss is a scalar.
struct LinearCrossEntropy : public Function<LinearCrossEntropy> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &hidden, const at::Tensor &weight,
                              const at::Tensor &targets, double scale, double smoothing, double softcap,
                              bool to_hidden_needed, bool to_weight_needed) {
        int64_t rows = hidden.size(0), vocabulary = weight.size(0);
        int64_t step = chunk_rows(vocabulary, hidden.is_cuda());
        at::Tensor to_hidden, to_weight;
        if (to_hidden_needed) to_hidden = at::empty_like(hidden);
        if (to_weight_needed) to_weight = at::zeros_like(weight);
        at::Tensor total = at::zeros({}, hidden.options().dtype(at::kDouble));
        for (int64_t start = 0; start < rows; start += step) {
            LogitsScope scope;
            int64_t count = std::min(step, rows - start);
            at::Tensor part = hidden.narrow(0, start, count);
            at::Tensor wanted = targets.narrow(0, start, count).unsqueeze(1);
            // Products in the type of what is multiplied, everything between them in fp32 at least.
            at::Tensor logits = at::mm(part, weight.t());
            if (is_half(logits.scalar_type())) logits = logits.to(at::kFloat);
            if (softcap > 0) {
                logits.mul_(scale / softcap).tanh_().mul_(softcap);
            } else if (scale != 1) {
                logits.mul_(scale);
            }
            at::Tensor normaliser = at::logsumexp(logits, {-1}, true);
            total += (1 - smoothing) * (normaliser - logits.gather(1, wanted)).sum(at::kDouble);
            if (smoothing > 0) total += smoothing * (normaliser - logits.mean(-1, true)).sum(at::kDouble);
            if (!to_hidden_needed && !to_weight_needed) continue;
            // The cap's slope, 1 − (capped / k)², needs the capped logits once more.
            at::Tensor gradient = (softcap > 0 ? logits - normaliser : logits.sub_(normaliser)).exp_();
            if (smoothing > 0) gradient.sub_(smoothing / static_cast<double>(vocabulary));
            gradient.scatter_add_(1, wanted, at::full_like(wanted, smoothing - 1, gradient.options()));
            if (softcap > 0) gradient.addcmul_(gradient * logits, logits, -1 / (softcap * softcap));
            if (scale != 1) gradient.mul_(scale);
            gradient = gradient.to(hidden.scalar_type());
            if (to_hidden_needed) {
                at::Tensor target = to_hidden.narrow(0, start, count);
                at::mm_out(target, gradient, weight);
            }
            if (to_weight_needed) to_weight.addmm_(gradient.t(), part);
        }
        context->save_for_backward({to_hidden, to_weight});
        return total.to(is_half(hidden.scalar_type()) ? at::kFloat : hidden.scalar_type());
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        auto saved = context->get_saved_variables();
        at::Tensor to_hidden, to_weight;
        if (saved[0].defined()) to_hidden = saved[0] * gradients[0].to(saved[0].scalar_type());
        if (saved[1].defined()) to_weight = saved[1] * gradients[0].to(saved[1].scalar_type());
        return {to_hidden, to_weight, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

}  // namespace

extern "C" CTTensor *ct_linear_cross_entropy(const CTTensor *hidden, const CTTensor *weight, const CTTensor *targets,
                                             double scale, double label_smoothing, double softcap) {
    return tensor_or_error([&] {
        at::ScalarType type = compute_type(unbox(hidden));
        at::Tensor h = in_type(unbox(hidden), type), w = in_type(unbox(weight), type), t = unbox(targets);
        WithoutAutocast guard;
        TORCH_CHECK(h.dim() == 2 && w.dim() == 2 && h.size(1) == w.size(1) && t.dim() == 1 && t.size(0) == h.size(0),
                    "cross-entropy of hidden ", h.sizes(), ", weight ", w.sizes(), ", targets ", t.sizes());
        bool grad = c10::GradMode::is_enabled();
        return LinearCrossEntropy::apply(h, w, t, scale, label_smoothing, softcap, grad && h.requires_grad(),
                                         grad && w.requires_grad());
    });
}
