// The LoRA branch as one autograd node that adds to the projection's output in place (Hu et al. 2021, eq. 3).
#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Dropout.hpp"
#include "Elements.hpp"
#include "LoRABranch.hpp"
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

/// Minimum rows per thread.
constexpr int64_t rows_of_a_thread = 4;
/// Minimum elements of B per thread.
constexpr int64_t elements_of_b = 4096;

}  // namespace

namespace ctorch {

bool is_for_few(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b) {
    return is_plain(y) && is_plain(x) && is_plain(a) && is_plain(b) && !is_half(compute_type(y)) &&
           !(at::GradMode::is_enabled() && (y.requires_grad() || x.requires_grad() || a.requires_grad() || b.requires_grad()));
}

void check_factors(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b) {
    TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(1) && a.size(1) == x.size(-1) && b.size(0) == y.size(-1) &&
                    x.numel() * y.size(-1) == y.numel() * x.size(-1),
                "shape mismatch: LoRA A ", a.sizes(), ", B ", b.sizes(), ", input ", x.sizes(), ", output ", y.sizes());
}

at::Tensor with_lora_branch(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b, double scale,
                            double dropout, uint64_t seed) {
    if (dropout == 0 && is_for_few(y, x, a, b) && y.size(-1) > 0 && y.numel() <= ckernels::few_dense_rows * y.size(-1)) {
        check_factors(y, x, a, b);
        const int64_t inputs = x.size(-1), outputs = y.size(-1);
        float *to = mutable_floats(y);
        const float *from = floats(x);
        const int64_t rows = y.numel() / outputs, rank = a.size(0);
        const auto add = [&](int64_t begin, int64_t end, int64_t first, int64_t last) {
            ckernels::add_low_rank(to + begin * outputs, from + begin * inputs, end - begin, inputs, outputs, rank, floats(a),
                                   floats(b), static_cast<float>(scale), first, last);
        };
        if (rows > rows_of_a_thread) {
            ckernels::parallel_for(0, rows, rows_of_a_thread, [&](int64_t begin, int64_t end) { add(begin, end, 0, outputs); });
        } else {
            // B is divided among the threads; each computes x Aᵀ itself, which is faster than synchronizing.
            const int64_t grain = std::max<int64_t>(1, elements_of_b / std::max<int64_t>(1, rank));
            ckernels::parallel_for(0, outputs, grain, [&](int64_t first, int64_t last) { add(0, rows, first, last); });
        }
        return y;
    }
    // The base's type decides: trained parameters of a wider type are downcast.
    at::ScalarType type = compute_type(y);
    at::Tensor output = in_type(y, type), input = in_type(x, type);
    at::Tensor first = in_type(a, type), second = in_type(b, type);
    WithoutAutocast guard;
    auto shape = output.sizes().vec();
    at::Tensor flat = output.reshape({-1, output.size(-1)});
    at::Tensor result = applied(LoRABranch(scale, dropout, seed), {flat, input.reshape({-1, input.size(-1)}), first, second});
    return result.reshape(shape);
}

}  // namespace ctorch

extern "C" CTTensor *ct_lora_branch(const CTTensor *y, const CTTensor *x, const CTTensor *a, const CTTensor *b, double scale,
                                    double dropout, uint64_t seed) {
    return tensor_or_error([&] { return with_lora_branch(unbox(y), unbox(x), unbox(a), unbox(b), scale, dropout, seed); });
}
