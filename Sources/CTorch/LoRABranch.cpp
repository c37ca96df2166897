// The LoRA branch as one autograd node that adds to the projection's output in place (Hu et al. 2021, eq. 3).
#include <ATen/ops/mm.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Dropout.hpp"
#include "Elements.hpp"
#include "MatrixProduct.hpp"
#include "Precision.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/Parallel.hpp"

using namespace ctorch;

namespace {

/// y += s · drop(x) Aᵀ Bᵀ, with x [tokens, in], A [r, in], B [out, r].
///
/// Saves x, which the projections of one input share, and drop(x) Aᵀ, r floats per token (times s with a BLAS); no
/// matrix of the output's size is allocated.
struct LoRABranch : AutogradNode {
    LoRABranch(double scale, double dropout, uint64_t seed) : scale(scale), dropout(dropout), seed(seed) {}

    /// Of y, x, A and B.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        at::Tensor y = inputs[0];
        const at::Tensor &x = inputs[1], &a = inputs[2], &b = inputs[3];
        at::Tensor input = dropout > 0 ? dropped(x, dropout, seed) : x;
        at::Tensor low = multiplied(input, a.t());
        is_scaled = are_for_blas(low, b);
        if (is_scaled) {
            add_product(y, low.mul_(scale), b.t());
        } else {
            // In half precision the scale is part of the matmul, without another rounding.
            y.addmm_(low, b.t(), 1, scale);
        }
        if (context) {
            context->mark_dirty(y);
            context->save({x, a, b, low});
        }
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &x = saved[0], &a = saved[1], &b = saved[2], &low = saved[3], &gradient = gradients[0];
        at::Tensor to_x, to_a, to_b;
        if (context.needs_gradient(3)) {
            to_b = multiplied(gradient.t(), low);
            if (!is_scaled) to_b.mul_(scale);
        }
        at::Tensor to_low = multiplied(gradient, b).mul_(scale);
        if (context.needs_gradient(2)) {
            to_a = multiplied(to_low.t(), dropout > 0 ? dropped(x, dropout, seed) : x);
        }
        if (context.needs_gradient(1)) {
            to_x = multiplied(to_low, a);
            if (dropout > 0) drop_in_place(to_x, dropout, seed);
        }
        return {gradient, to_x, to_a, to_b};
    }

private:
    double scale, dropout;
    uint64_t seed;
    /// Whether x Aᵀ was scaled before it was saved.
    bool is_scaled = false;
};

/// Whether the few-row kernel adds the LoRA delta: nothing needs a gradient.
bool is_for_few(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b) {
    return is_plain(y) && is_plain(x) && is_plain(a) && is_plain(b) && !is_half(compute_type(y)) &&
           !(at::GradMode::is_enabled() && (y.requires_grad() || x.requires_grad() || a.requires_grad() || b.requires_grad()));
}

void check_factors(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b) {
    TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(1) && a.size(1) == x.size(-1) && b.size(0) == y.size(-1) &&
                    x.numel() * y.size(-1) == y.numel() * x.size(-1),
                "shape mismatch: LoRA A ", a.sizes(), ", B ", b.sizes(), ", input ", x.sizes(), ", output ", y.sizes());
}

/// Minimum rows per thread.
constexpr int64_t rows_of_a_thread = 4;
/// Minimum elements of B per thread.
constexpr int64_t elements_of_b = 4096;

/// Consecutive rows with the same adapter, or none.
struct Group {
    int64_t first, end;
    const CTTensor *a, *b;
    double scale;
};

}  // namespace

extern "C" CTTensor *ct_lora_branch(const CTTensor *y, const CTTensor *x, const CTTensor *a, const CTTensor *b, double scale,
                                    double dropout, uint64_t seed) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &y_given = unbox(y), &x_given = unbox(x);
        if (dropout == 0 && is_for_few(y_given, x_given, unbox(a), unbox(b)) && y_given.size(-1) > 0 &&
            y_given.numel() <= ckernels::few_dense_rows * y_given.size(-1)) {
            check_factors(y_given, x_given, unbox(a), unbox(b));
            const int64_t inputs = x_given.size(-1), outputs = y_given.size(-1);
            float *to = mutable_floats(y_given);
            const float *from = floats(x_given);
            const int64_t rows = y_given.numel() / outputs, rank = unbox(a).size(0);
            const auto add = [&](int64_t begin, int64_t end, int64_t first, int64_t last) {
                ckernels::add_low_rank(to + begin * outputs, from + begin * inputs, end - begin, inputs, outputs, rank,
                                       floats(unbox(a)), floats(unbox(b)), static_cast<float>(scale), first, last);
            };
            if (rows > rows_of_a_thread) {
                ckernels::parallel_for(0, rows, rows_of_a_thread,
                                       [&](int64_t begin, int64_t end) { add(begin, end, 0, outputs); });
            } else {
                // B is divided among the threads; each computes x Aᵀ itself, which is faster than synchronizing.
                const int64_t grain = std::max<int64_t>(1, elements_of_b / std::max<int64_t>(1, rank));
                ckernels::parallel_for(0, outputs, grain, [&](int64_t first, int64_t last) { add(0, rows, first, last); });
            }
            return y_given;
        }
        // The base's type decides: trained parameters of a wider type are downcast.
        at::ScalarType type = compute_type(unbox(y));
        at::Tensor output = in_type(unbox(y), type), input = in_type(unbox(x), type);
        at::Tensor first = in_type(unbox(a), type), second = in_type(unbox(b), type);
        WithoutAutocast guard;
        auto shape = output.sizes().vec();
        at::Tensor flat = output.reshape({-1, output.size(-1)});
        at::Tensor result = applied(LoRABranch(scale, dropout, seed), {flat, input.reshape({-1, input.size(-1)}), first, second});
        return result.reshape(shape);
    });
}

extern "C" int ct_grouped_lora_branches(const CTTensor *y, const CTTensor *x, int groups, const int64_t *offsets,
                                        const CTTensor *const *a, const CTTensor *const *b, const double *scales) {
    return status_or_error([&] {
        const at::Tensor &output = unbox(y), &input = unbox(x);
        TORCH_CHECK(output.dim() == 2 && input.dim() == 2 && output.size(0) == input.size(0),
                    "input and output must be matrices with equally many rows (got ", input.sizes(), " and ", output.sizes(),
                    ")");
        bool is_for_kernel = true;
        std::vector<Group> list;
        for (int g = 0; g < groups; ++g) {
            TORCH_CHECK(0 <= offsets[g] && offsets[g] <= offsets[g + 1] && offsets[g + 1] <= output.size(0), "offsets of group ",
                        g, " are not within ", output.size(0), " rows");
            if (!a[g] || offsets[g] == offsets[g + 1]) continue;
            check_factors(output, input, unbox(a[g]), unbox(b[g]));
            is_for_kernel = is_for_kernel && is_for_few(output, input, unbox(a[g]), unbox(b[g]));
            list.push_back({offsets[g], offsets[g + 1], a[g], b[g], scales[g]});
        }
        if (is_for_kernel) {
            float *to = mutable_floats(output);
            const float *from = floats(input);
            const int64_t inputs = input.size(1), outputs = output.size(1);
            ckernels::parallel_for(0, static_cast<int64_t>(list.size()), 1, [&](int64_t begin, int64_t end) {
                for (int64_t g = begin; g < end; ++g) {
                    const Group &group = list[static_cast<size_t>(g)];
                    ckernels::add_low_rank(to + group.first * outputs, from + group.first * inputs, group.end - group.first,
                                           inputs, outputs, unbox(group.a).size(0), floats(unbox(group.a)),
                                           floats(unbox(group.b)), static_cast<float>(group.scale), 0, outputs);
                }
            });
            return;
        }
        at::ScalarType type = compute_type(output);
        WithoutAutocast guard;
        for (const Group &group : list) {
            at::Tensor low = at::mm(in_type(input.slice(0, group.first, group.end), type), in_type(unbox(group.a), type).t());
            at::Tensor part = output.slice(0, group.first, group.end);
            part.add_(at::mm(low, in_type(unbox(group.b), type).t()), group.scale);
        }
    });
}
