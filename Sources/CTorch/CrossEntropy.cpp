// Fused linear cross-entropy: the matrix of logits is never materialized, only chunks of its rows.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <functional>
#include <utility>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "GroupQuantized.hpp"
#include "MatrixProduct.hpp"
#include "MemoryLog.hpp"
#include "Precision.hpp"
#include "Quantized.hpp"
#include "ckernels/LossRows.hpp"

using namespace ctorch;

namespace {

/// Rows of logits per chunk: about 8 MB on a CPU, to fit in the cache, or 256 MB on a GPU, where launches cost more;
/// at least 16 rows, for efficient matmuls.
int64_t chunk_rows(int64_t vocabulary, bool is_gpu) {
    return std::max<int64_t>(16, (is_gpu ? 256 << 20 : 8 << 20) / (4 * std::max<int64_t>(vocabulary, 1)));
}

bool is_for_loss_rows(const at::Tensor &scores, const at::Tensor &targets) {
    return (scores.is_cpu() || scores.is_meta()) && scores.scalar_type() == at::kFloat && scores.dim() == 2 &&
           scores.is_contiguous() && scores.size(1) > 0 && targets.scalar_type() == at::kLong &&
           targets.device() == scores.device();
}

/// Adds the loss of the rows to `total`, a double, and overwrites the scores by their gradient if `makes_gradient`.
void add_loss_rows(at::Tensor &scores, const at::Tensor &given, double scale, double smoothing, bool makes_gradient,
                   at::Tensor &total) {
    if (scores.is_meta()) return;
    const int64_t vocabulary = scores.size(1), rows = scores.size(0);
    const at::Tensor ids = given.contiguous();
    const auto *targets = elements<int64_t>(ids);
    for (int64_t row = 0; row < rows; ++row) {
        TORCH_CHECK(targets[row] >= 0 && targets[row] < vocabulary, "target ", targets[row],
                    " is out of range for a vocabulary of ", vocabulary);
    }
    total += ckernels::loss_rows(mutable_elements<float>(scores), targets, rows, vocabulary, scale, smoothing, makes_gradient);
}

/// Options of the loss.
struct Terms {
    double scale, smoothing, softcap;
};

/// Σ over rows of −log softmax(cap(c · s))[target] with scores s [rows, vocabulary] and cap(s) = k · tanh(s / k) where a
/// soft cap k is given (Gemma 2), as a double.
///
/// With label smoothing ε the target is (1 − ε) of the one-hot and ε of the uniform distribution (Szegedy et al.
/// 2016). The gradients are computed in the forward pass, while a chunk's logits are in the cache; the loss is a
/// scalar, so the backward pass only scales them.
///
/// - scores(part): s of a chunk of hidden states.
/// - take(start, part, gradient): receives the gradient w.r.t. s of the chunk that starts at row `start`.
template <typename Scores, typename Take>
at::Tensor loss_by_chunks(const at::Tensor &hidden, const at::Tensor &targets, int64_t vocabulary, int64_t step,
                          const Terms &terms, bool needs_gradient, Scores scores, Take take) {
    const auto [scale, smoothing, softcap] = terms;
    const int64_t rows = hidden.size(0);
    at::Tensor total = at::zeros({}, hidden.options().dtype(at::kDouble));
    for (int64_t start = 0; start < rows; start += step) {
        LogitsScope scope;
        const int64_t count = std::min(step, rows - start);
        at::Tensor part = hidden.narrow(0, start, count);
        at::Tensor wanted = targets.narrow(0, start, count).unsqueeze(1);
        // Matmuls run in the operands' type, everything between them in fp32 at least.
        at::Tensor logits = scores(part);
        if (is_half(logits.scalar_type())) logits = logits.to(at::kFloat);
        if (is_for_loss_rows(logits, targets) && softcap == 0) {
            add_loss_rows(logits, targets.narrow(0, start, count), scale, smoothing, needs_gradient, total);
            if (needs_gradient) take(start, part, logits.to(hidden.scalar_type()));
            continue;
        }
        if (softcap > 0) {
            logits.mul_(scale / softcap).tanh_().mul_(softcap);
        } else if (scale != 1) {
            logits.mul_(scale);
        }
        at::Tensor normalizer = at::logsumexp(logits, {-1}, true);
        total += (1 - smoothing) * (normalizer - logits.gather(1, wanted)).sum(at::kDouble);
        if (smoothing > 0) total += smoothing * (normalizer - logits.mean(-1, true)).sum(at::kDouble);
        if (!needs_gradient) continue;
        // The cap's derivative, 1 − (capped / k)², needs the capped logits.
        at::Tensor gradient = (softcap > 0 ? logits - normalizer : logits.sub_(normalizer)).exp_();
        if (smoothing > 0) gradient.sub_(smoothing / static_cast<double>(vocabulary));
        gradient.scatter_add_(1, wanted, at::full_like(wanted, smoothing - 1, gradient.options()));
        if (softcap > 0) gradient.addcmul_(gradient * logits, logits, -1 / (softcap * softcap));
        if (scale != 1) gradient.mul_(scale);
        take(start, part, gradient.to(hidden.scalar_type()));
    }
    return total.to(is_half(hidden.scalar_type()) ? at::kFloat : hidden.scalar_type());
}

/// scores + bias, in place, if there is a bias.
at::Tensor shifted(at::Tensor scores, const at::Tensor &bias) {
    if (bias.defined()) scores.add_(bias);
    return scores;
}

/// The loss of logits h Wᵀ + b, with h [n, d], W [vocabulary, d] and an optional b [vocabulary].
struct LinearCrossEntropy : AutogradNode {
    LinearCrossEntropy(at::Tensor targets, const Terms &terms) : targets(std::move(targets)), terms(terms) {}

    /// Of h, W and b, which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &hidden = inputs[0], &weight = inputs[1], &bias = inputs[2];
        const bool to_hidden_needed = context && hidden.requires_grad(), to_weight_needed = context && weight.requires_grad();
        const bool to_bias_needed = context && bias.defined() && bias.requires_grad();
        at::Tensor to_hidden, to_weight, to_bias;
        if (to_hidden_needed) to_hidden = at::empty_like(hidden);
        if (to_weight_needed) to_weight = at::zeros_like(weight);
        if (to_bias_needed) to_bias = at::zeros_like(bias);
        at::Tensor total = loss_by_chunks(
            hidden, targets, weight.size(0), chunk_rows(weight.size(0), hidden.is_cuda()), terms,
            to_hidden_needed || to_weight_needed || to_bias_needed,
            [&](const at::Tensor &part) { return shifted(multiplied(part, weight.t()), bias); },
            [&](int64_t start, const at::Tensor &part, const at::Tensor &gradient) {
                if (to_hidden_needed) {
                    at::Tensor target = to_hidden.narrow(0, start, part.size(0));
                    set_product(target, gradient, weight);
                }
                if (to_weight_needed) add_product(to_weight, gradient.t(), part);
                if (to_bias_needed) to_bias.add_(gradient.sum(0));
            });
        if (context) context->save({to_hidden, to_weight, to_bias});
        return {total};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        Tensors results(3);
        for (size_t i = 0; i < 3; ++i) {
            if (saved[i].defined()) results[i] = saved[i] * gradients[0].to(saved[i].scalar_type());
        }
        return results;
    }

private:
    at::Tensor targets;
    Terms terms;
};

/// A frozen, quantized W [vocabulary, size].
struct FrozenOutputs {
    int64_t vocabulary = 0, size = 0;
    /// h Wᵀ and g W.
    std::function<at::Tensor(const at::Tensor &)> product, transposed_product;

    explicit FrozenOutputs(StoredMatrix w)
        : vocabulary(w.outputs), size(w.inputs), product([w](const at::Tensor &x) { return w.product(x); }),
          transposed_product([w](const at::Tensor &x) { return w.transposed_product(x); }) {}

    explicit FrozenOutputs(GroupMatrix w)
        : vocabulary(w.outputs()), size(w.inputs()), product([w](const at::Tensor &x) { return ctorch::product(w, x); }),
          transposed_product([w](const at::Tensor &x) { return ctorch::transposed_product(w, x); }) {}
};

/// Chunks are this many times as long with a quantized W, as each chunk dequantizes all of its tiles.
constexpr int64_t stored_chunks = 4;

/// The same with a frozen, quantized W.
struct StoredCrossEntropy : AutogradNode {
    StoredCrossEntropy(FrozenOutputs weight, at::Tensor targets, const Terms &terms)
        : weight(std::move(weight)), targets(std::move(targets)), terms(terms) {}

    /// Of h and b, which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &hidden = inputs[0], &bias = inputs[1];
        const bool to_hidden_needed = context && hidden.requires_grad();
        const bool to_bias_needed = context && bias.defined() && bias.requires_grad();
        at::Tensor to_hidden, to_bias;
        if (to_hidden_needed) to_hidden = at::empty_like(hidden);
        if (to_bias_needed) to_bias = at::zeros_like(bias);
        at::Tensor total = loss_by_chunks(
            hidden, targets, weight.vocabulary, stored_chunks * chunk_rows(weight.vocabulary, hidden.is_cuda()), terms,
            to_hidden_needed || to_bias_needed, [&](const at::Tensor &part) { return shifted(weight.product(part), bias); },
            [&](int64_t start, const at::Tensor &part, const at::Tensor &gradient) {
                if (to_hidden_needed) {
                    to_hidden.narrow(0, start, part.size(0)).copy_(weight.transposed_product(gradient));
                }
                if (to_bias_needed) to_bias.add_(gradient.sum(0));
            });
        if (context) context->save({to_hidden, to_bias});
        return {total};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        Tensors results(2);
        for (size_t i = 0; i < 2; ++i) {
            if (saved[i].defined()) results[i] = saved[i] * gradients[0].to(saved[i].scalar_type());
        }
        return results;
    }

private:
    FrozenOutputs weight;
    at::Tensor targets;
    Terms terms;
};

void check_shapes(const at::Tensor &hidden, at::IntArrayRef weight, const at::Tensor &bias, const at::Tensor &targets) {
    TORCH_CHECK(hidden.dim() == 2 && weight.size() == 2 && hidden.size(1) == weight[1] && targets.dim() == 1 &&
                    targets.size(0) == hidden.size(0),
                "shape mismatch: hidden states ", hidden.sizes(), ", weight ", weight, ", targets ", targets.sizes());
    TORCH_CHECK(!bias.defined() || (bias.dim() == 1 && bias.size(0) == weight[0]), "shape mismatch: a bias ", bias.sizes(),
                " for the weight ", weight);
}

/// A bias, or none where NULL is given, in a type.
at::Tensor bias_in(const CTTensor *bias, at::ScalarType type) {
    return bias == nullptr ? at::Tensor() : in_type(unbox(bias), type);
}

/// The loss with a quantized W.
at::Tensor frozen_cross_entropy(const FrozenOutputs &w, const CTTensor *hidden, const CTTensor *bias, const CTTensor *targets,
                                const Terms &terms) {
    const at::ScalarType type = compute_type(unbox(hidden));
    const at::Tensor h = in_type(unbox(hidden), type), b = bias_in(bias, type), t = unbox(targets);
    WithoutAutocast guard;
    check_shapes(h, {w.vocabulary, w.size}, b, t);
    return applied(StoredCrossEntropy(w, t, terms), {h, b});
}

}  // namespace

extern "C" {

CTTensor *ct_linear_cross_entropy(const CTTensor *hidden, const CTTensor *weight, const CTTensor *bias, const CTTensor *targets,
                                  double scale, double label_smoothing, double softcap) {
    return tensor_or_error([&] {
        at::ScalarType type = compute_type(unbox(hidden));
        at::Tensor h = in_type(unbox(hidden), type), w = in_type(unbox(weight), type), b = bias_in(bias, type);
        at::Tensor t = unbox(targets);
        WithoutAutocast guard;
        check_shapes(h, w.sizes(), b, t);
        return applied(LinearCrossEntropy(t, Terms{scale, label_smoothing, softcap}), {h, w, b});
    });
}

CTTensor *ct_stored_cross_entropy(const CTTensor *hidden, const CTStoredMatrix *stored, const CTTensor *bias,
                                  const CTTensor *targets, double scale, double label_smoothing, double softcap) {
    return tensor_or_error([&] {
        return frozen_cross_entropy(FrozenOutputs(stored_matrix(stored)), hidden, bias, targets,
                                    {scale, label_smoothing, softcap});
    });
}

CTTensor *ct_group_cross_entropy(const CTTensor *hidden, const CTGroupMatrix *group, const CTTensor *bias,
                                 const CTTensor *targets, double scale, double label_smoothing, double softcap) {
    return tensor_or_error([&] {
        return frozen_cross_entropy(FrozenOutputs(group_matrix(group)), hidden, bias, targets, {scale, label_smoothing, softcap});
    });
}
}
