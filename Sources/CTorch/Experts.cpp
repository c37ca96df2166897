// Mixtures of experts (Shazeer et al. 2017): a grouped matmul in which each row is multiplied by its expert's matrix, and the
// weighted sum of the experts' outputs. Rows are in the order of their experts, so that each expert's are contiguous; no
// matrix is copied or gathered.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <vector>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "ExpertStack.hpp"
#include "Precision.hpp"
#include "Recomputation.hpp"

using namespace ctorch;

namespace {

using Offsets = std::vector<int64_t>;

/// The place of each assignment in `order`.
at::Tensor inverse(const at::Tensor &order) {
    at::Tensor places = at::empty_like(order);
    return places.scatter_(0, order, at::arange(order.numel(), order.options()));
}

/// Σⱼ x[place of (t, j)], [tokens, size], of x [tokens · k, size] in the order of experts. Sums in a fixed order.
at::Tensor summed(const at::Tensor &x, const at::Tensor &order, int64_t tokens, int64_t choices) {
    return x.index_select(0, inverse(order)).view({tokens, choices, x.size(1)}).sum(1);
}

/// y = x W_eᵀ + b_e + s · x A_eᵀ B_eᵀ with the expert e of each row.
///
/// Saves x if a W or A is trained, not its gathered rows, and no output; the low-rank x A_eᵀ is recomputed.
class ExpertLinear : public AutogradNode {
public:
    /// - Parameter choices: k if x is to be gathered, 0 if its rows are in the order of experts.
    ExpertLinear(ExpertStack stack, Offsets offsets, at::Tensor order, int64_t choices, double scale)
        : stack(std::move(stack)), offsets(std::move(offsets)), order(std::move(order)), choices(choices), scale(scale) {}

    /// Of x, the dense W, b, A and B; all but x may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0], &bias = inputs[2], &a = inputs[3], &b = inputs[4];
        at::Tensor y = at::empty({offsets.back(), stack.outputs}, x.options());
        const at::Tensor tokens = gathered_tokens(order);
        for_experts([&](int64_t expert, int64_t first, int64_t count) {
            const at::Tensor rows = rows_of(x, tokens, first, count);
            at::Tensor part = y.narrow(0, first, count);
            stack.multiply(expert, rows, part);
            if (bias.defined()) part.add_(bias.select(0, expert));
            if (a.defined()) {
                const at::Tensor low = at::mm(rows, a.select(0, expert).t());
                part.addmm_(low, b.select(0, expert).t(), 1, scale);
            }
        });
        if (context) {
            const bool is_read = is_trained(inputs[1]) || is_trained(a) || is_trained(b);
            Tensors saved{is_read ? x : at::Tensor(), a, b, order};
            for (at::Tensor &part : stack.parts()) saved.push_back(std::move(part));
            context->save(std::move(saved));
            rows = x.size(0);
            // The saved tensors alone keep the values alive.
            stack = stack.with_parts(Tensors(5));
            order = at::Tensor();
        }
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &x = saved[0], &a = saved[1], &b = saved[2], &known = saved[3];
        Tensors parts(saved.begin() + 4, saved.end());
        parts.resize(5);
        const ExpertStack matrices = stack.with_parts(parts);
        const at::Tensor gradient = gradients[0].contiguous(), tokens = gathered_tokens(known);
        at::Tensor to_rows, to_weight, to_bias, to_a, to_b;
        if (context.needs_gradient(0)) to_rows = at::empty({offsets.back(), stack.inputs}, gradient.options());
        if (context.needs_gradient(1)) to_weight = at::zeros_like(matrices.dense, at::MemoryFormat::Contiguous);
        if (context.needs_gradient(2)) to_bias = at::zeros({stack.experts, stack.outputs}, gradient.options());
        if (context.needs_gradient(3)) to_a = at::zeros(a.sizes(), gradient.options());
        if (context.needs_gradient(4)) to_b = at::zeros(b.sizes(), gradient.options());
        for_experts([&](int64_t expert, int64_t first, int64_t count) {
            const at::Tensor part = gradient.narrow(0, first, count);
            const at::Tensor rows = x.defined() ? rows_of(x, tokens, first, count) : at::Tensor();
            at::Tensor low;
            if (a.defined()) low = at::mm(part, b.select(0, expert)).mul_(scale);
            if (to_rows.defined()) {
                at::Tensor result = to_rows.narrow(0, first, count);
                matrices.multiply_transposed(expert, part, result);
                if (a.defined()) result.addmm_(low, a.select(0, expert));
            }
            if (to_weight.defined()) matrices.set_gradient(part, rows, to_weight.select(0, expert));
            if (to_bias.defined()) to_bias.select(0, expert).copy_(part.sum(0));
            if (to_a.defined()) to_a.select(0, expert).copy_(at::mm(low.t(), rows));
            if (to_b.defined()) {
                to_b.select(0, expert).copy_(at::mm(part.t(), at::mm(rows, a.select(0, expert).t())).mul_(scale));
            }
        });
        at::Tensor to_x = to_rows;
        if (to_rows.defined() && choices > 0) to_x = summed(to_rows, known, rows, choices);
        return {to_x, to_weight, to_bias, to_a, to_b};
    }

private:
    /// In the backward pass without the tensors that are saved.
    ExpertStack stack;
    Offsets offsets;
    at::Tensor order;
    int64_t choices;
    double scale;
    /// Number of rows of x.
    int64_t rows = 0;

    /// (div has a kernel for tensors without values, floor_divide has none.)
    at::Tensor gathered_tokens(const at::Tensor &known) const { return choices > 0 ? known.div(choices, "floor") : at::Tensor(); }

    static bool is_trained(const at::Tensor &t) { return t.defined() && t.requires_grad(); }

    static at::Tensor rows_of(const at::Tensor &x, const at::Tensor &tokens, int64_t first, int64_t count) {
        if (!tokens.defined()) return x.narrow(0, first, count);
        return x.index_select(0, tokens.narrow(0, first, count));
    }

    /// Calls `body(expert, first, count)` for each expert with rows.
    template <typename Body> void for_experts(Body body) const {
        for (size_t expert = 0; expert + 1 < offsets.size(); ++expert) {
            const int64_t first = offsets[expert], count = offsets[expert + 1] - first;
            if (count > 0) body(static_cast<int64_t>(expert), first, count);
        }
    }
};

/// out[t] = Σⱼ w[t, j] · y_tj, of the experts' outputs y in the order of experts.
class ExpertSum : public AutogradNode {
public:
    /// Of y, w and the order.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &y = inputs[0], &weights = inputs[1], &order = inputs[2];
        if (context) context->save({y, weights, order});
        const at::Tensor scaled = y * weights.reshape({-1, 1}).index_select(0, order);
        return {summed(scaled, order, weights.size(0), weights.size(1))};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &y = saved[0], &weights = saved[1], &order = saved[2];
        const at::Tensor gradient = gradients[0].index_select(0, order.div(weights.size(1), "floor"));
        at::Tensor to_y, to_weights;
        if (context.needs_gradient(1)) {
            to_weights = (gradient * y).sum(1).index_select(0, inverse(order)).view(weights.sizes());
        }
        if (context.needs_gradient(0)) to_y = gradient * weights.reshape({-1, 1}).index_select(0, order);
        return {to_y, to_weights, at::Tensor()};
    }
};

/// The offsets, which must end at `count`.
Offsets checked_offsets(const at::Tensor &offsets, int64_t experts, int64_t count) {
    TORCH_CHECK(offsets.is_cpu() && offsets.scalar_type() == at::kLong && offsets.numel() == experts + 1, "offsets of ",
                offsets.numel(), " values for ", experts, " experts");
    const at::Tensor known = offsets.contiguous();
    const auto *values = elements<int64_t>(known);
    Offsets result(values, values + known.numel());
    for (size_t i = 0; i + 1 < result.size(); ++i) TORCH_CHECK(result[i] <= result[i + 1], "offsets that fall");
    TORCH_CHECK(result.front() == 0 && result.back() == count, "offsets up to ", result.back(), " for ", count, " rows");
    return result;
}

}  // namespace

extern "C" {

int ct_expert_routing(const CTTensor *assignments, int64_t experts, CTTensor **order, CTTensor **offsets) {
    return status_or_error([&] {
        const at::Tensor flat = unbox(assignments).reshape({-1});
        TORCH_CHECK(flat.scalar_type() == at::kLong && experts > 0, "assignments must be int64 (got ", flat.scalar_type(), ")");
        at::NoGradGuard guard;
        at::Tensor ends = at::zeros({experts + 1}, at::TensorOptions().dtype(at::kLong));
        if (flat.is_meta()) {
            // No value is known: as even as can be.
            auto *values = mutable_elements<int64_t>(ends);
            for (int64_t e = 1; e <= experts; ++e) values[e] = flat.numel() * e / experts;
            *order = box(at::empty_like(flat));
        } else {
            const at::Tensor counts = at::bincount(flat, {}, experts).to(at::kCPU);
            TORCH_CHECK(counts.numel() == experts, "an expert beyond the ", experts, " that there are");
            ends.narrow(0, 1, experts).copy_(counts.cumsum(0));
            *order = box(flat.argsort(/* stable */ true, 0, false));
        }
        *offsets = box(std::move(ends));
    });
}

CTTensor *ct_expert_linear(const CTTensor *input, const CTExpertStack *given, const CTTensor *bias, const CTTensor *a,
                           const CTTensor *b, double scale, const CTTensor *order, const CTTensor *offsets, int64_t choices) {
    return tensor_or_error([&]() -> at::Tensor {
        const ExpertStack stack = expert_stack(given);
        const at::Tensor &x = unbox(input), &places = unbox(order);
        TORCH_CHECK(x.dim() == 2 && x.size(1) == stack.inputs, "an input of shape ", x.sizes(), " for experts with ",
                    stack.inputs, " inputs");
        const int64_t count = places.numel(), tokens = x.size(0);
        TORCH_CHECK(choices >= 0 && count == tokens * std::max<int64_t>(1, choices), count, " assignments for ", tokens, " rows");
        const auto fits = [&](const CTTensor *t, std::vector<int64_t> shape) {
            TORCH_CHECK(!t || unbox(t).sizes() == at::IntArrayRef(shape), "a tensor of shape ", unbox(t).sizes(),
                        " where experts need ", shape);
        };
        fits(bias, {stack.experts, stack.outputs});
        TORCH_CHECK((a == nullptr) == (b == nullptr), "one LoRA factor without the other");
        if (a) {
            const int64_t rank = unbox(a).dim() == 3 ? unbox(a).size(1) : 0;
            fits(a, {stack.experts, rank, stack.inputs});
            fits(b, {stack.experts, stack.outputs, rank});
        }
        const Offsets ends = checked_offsets(unbox(offsets), stack.experts, count);
        if (recomputation_is_complete()) return at::empty({count, stack.outputs}, x.options());
        const at::ScalarType type = compute_type(x);
        WithoutAutocast guard;
        const auto typed = [type](const CTTensor *t) { return in_type(unbox(t), type); };
        ExpertStack typed_stack = stack;
        typed_stack.dense = in_type(stack.dense, type);
        const Tensors inputs{in_type(x, type), typed_stack.dense, typed(bias), typed(a), typed(b)};
        return applied(ExpertLinear(std::move(typed_stack), ends, places, choices, scale), inputs);
    });
}

CTTensor *ct_expert_sum(const CTTensor *y, const CTTensor *weights, const CTTensor *order) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &outputs = unbox(y), &factors = unbox(weights);
        TORCH_CHECK(outputs.dim() == 2 && factors.dim() == 2 && factors.numel() == outputs.size(0) &&
                        unbox(order).numel() == outputs.size(0),
                    "outputs of shape ", outputs.sizes(), " for weights of shape ", factors.sizes());
        const at::ScalarType type = compute_type(outputs);
        WithoutAutocast guard;
        return applied(ExpertSum(), {in_type(outputs, type), in_type(factors, type), unbox(order)});
    });
}
}
