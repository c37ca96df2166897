// The adapters of a mixed-adapter batch at one projection (Punica, Chen et al. 2023; S-LoRA, Sheng et al. 2023): branches of low
// rank, Hadamard products of them, and gains of outputs, each for rows of its own, in one call.
#include <ATen/ops/add.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include <algorithm>

#include "Bridge.hpp"
#include "Elements.hpp"
#include "LoRABranch.hpp"
#include "Precision.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/HadamardBranch.hpp"
#include "ckernels/Parallel.hpp"

using namespace ctorch;

namespace {

/// Maximum rows of a branch that one thread computes; more are divided among the threads, or use blocked GEMMs.
constexpr int64_t rows_of_a_branch = 8;

const at::Tensor *optional_pointer(const CTTensor *x) { return x ? &unbox(x) : nullptr; }

/// A branch of few rows in fp32. The pointers are NULL where a tensor is absent.
struct FewRows {
    int64_t first, rows, rank;
    const float *a, *b, *other_a, *other_b, *gain, *bias;
    float scale;
};

/// y = gain ⊙ (y − bias) + bias, or gain ⊙ y without a bias.
void apply_gain(float *y, int64_t rows, int64_t outputs, const float *gain, const float *bias) {
    for (int64_t row = 0; row < rows; ++row, y += outputs) {
        if (bias) {
            for (int64_t j = 0; j < outputs; ++j) y[j] = gain[j] * (y[j] - bias[j]) + bias[j];
        } else {
            for (int64_t j = 0; j < outputs; ++j) y[j] *= gain[j];
        }
    }
}

/// The same in any types, computed in the wider one.
void apply_gain(const at::Tensor &y, const at::Tensor &gain, const at::Tensor *bias) {
    WithoutAutocast guard;
    at::Tensor value = at::mul(bias ? at::sub(y, *bias) : y, gain.reshape({-1}));
    y.copy_(bias ? at::add(value, *bias) : value);
}

/// Whether computing each row from the factors of a Hadamard product, rank² (inputs + outputs) multiplications, is less work than
/// forming ΔW for all.
bool is_for_rows(int64_t rows, int64_t rank, int64_t inputs, int64_t outputs) {
    const double size = static_cast<double>(inputs) * static_cast<double>(outputs);
    return static_cast<double>(rows * rank * rank) * static_cast<double>(inputs + outputs) <=
           static_cast<double>(2 * rank + rows) * size;
}

/// Throws if the factors of a Hadamard product don't fit.
void check_hadamard(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b, const at::Tensor &other_a,
                    const at::Tensor &other_b) {
    TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.sizes() == other_a.sizes() && b.sizes() == other_b.sizes() &&
                    a.size(0) == b.size(0) && a.size(1) == x.size(1) && b.size(1) == y.size(1),
                "the factors ", a.sizes(), ", ", b.sizes(), ", ", other_a.sizes(), " and ", other_b.sizes(),
                " of a Hadamard product do not fit ", x.size(1), " inputs and ", y.size(1), " outputs");
}

/// Applies a branch of many rows, or of another type than fp32.
void apply(const at::Tensor &y, const at::Tensor &x, const at::Tensor *bias, const CTRowBranch &branch) {
    const at::Tensor part = y.slice(0, branch.first, branch.end);
    if (branch.other_a) {
        WithoutAutocast guard;
        const at::Tensor delta =
            at::mm(unbox(branch.b).t(), unbox(branch.a)).mul_(at::mm(unbox(branch.other_b).t(), unbox(branch.other_a)));
        part.add_(at::mm(x.slice(0, branch.first, branch.end).to(delta.scalar_type()), delta.t()), branch.scale);
    } else if (branch.a) {
        const at::Tensor sum =
            with_lora_branch(part, x.slice(0, branch.first, branch.end), unbox(branch.a), unbox(branch.b), branch.scale);
        if (sum.const_data_ptr() != part.const_data_ptr()) part.copy_(sum);
    }
    if (branch.gain) apply_gain(part, unbox(branch.gain), branch.keeps_bias ? bias : nullptr);
}

}  // namespace

extern "C" int ct_row_branches(const CTTensor *y, const CTTensor *x, const CTTensor *bias, int count,
                               const CTRowBranch *branches) {
    return status_or_error([&] {
        const at::Tensor &output = unbox(y), &input = unbox(x);
        const at::Tensor *shift = optional_pointer(bias);
        TORCH_CHECK(output.dim() == 2 && input.dim() == 2 && output.size(0) == input.size(0),
                    "input and output must be matrices with equally many rows (got ", input.sizes(), " and ", output.sizes(),
                    ")");
        const int64_t inputs = input.size(1), outputs = output.size(1);
        TORCH_CHECK(!shift || shift->numel() == outputs, "a bias of ", shift ? shift->numel() : 0, " elements does not fit ",
                    outputs, " outputs");
        const bool is_plain_bias = !shift || is_plain(*shift);
        std::vector<FewRows> few;
        few.reserve(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) {
            const CTRowBranch &branch = branches[i];
            TORCH_CHECK(0 <= branch.first && branch.first <= branch.end && branch.end <= output.size(0), "rows ", branch.first,
                        " ..< ", branch.end, " of a branch are not within ", output.size(0), " rows");
            const at::Tensor *a = optional_pointer(branch.a), *b = optional_pointer(branch.b),
                             *other_a = optional_pointer(branch.other_a), *other_b = optional_pointer(branch.other_b),
                             *gain = optional_pointer(branch.gain);
            TORCH_CHECK(!a == !b && !other_a == !other_b && (a || !other_a), "a branch needs both factors");
            if (other_a) check_hadamard(output, input, *a, *b, *other_a, *other_b);
            else if (a) check_factors(output, input, *a, *b);
            TORCH_CHECK(!gain || gain->numel() == outputs, "a gain of ", gain ? gain->numel() : 0, " elements does not fit ",
                        outputs, " outputs");
            if (branch.first == branch.end || (!a && !gain)) continue;
            const bool keeps_bias = gain && branch.keeps_bias && shift;
            const int64_t rows = branch.end - branch.first;
            const bool is_product = other_a != nullptr;
            const bool is_low_rank = is_product ? is_plain(*a) && is_plain(*b) && is_plain(*other_a) && is_plain(*other_b) &&
                                                      is_for_rows(rows, a->size(0), inputs, outputs)
                                                : rows <= rows_of_a_branch && (!a || is_for_few(output, input, *a, *b));
            const bool is_few = is_low_rank && is_plain(output) && is_plain(input) && !is_half(compute_type(output)) &&
                                (!gain || is_plain(*gain)) && (!keeps_bias || is_plain_bias);
            if (!is_few) {
                apply(output, input, shift, branch);
                continue;
            }
            for (int64_t first = branch.first; first < branch.end; first += rows_of_a_branch) {
                few.push_back({first, std::min(rows_of_a_branch, branch.end - first), a ? a->size(0) : 0,
                               a ? floats(*a) : nullptr, a ? floats(*b) : nullptr, is_product ? floats(*other_a) : nullptr,
                               is_product ? floats(*other_b) : nullptr, gain ? floats(*gain) : nullptr,
                               keeps_bias ? floats(*shift) : nullptr, static_cast<float>(branch.scale)});
            }
        }
        if (few.empty()) return;
        float *to = mutable_floats(output);
        const float *from = floats(input);
        ckernels::parallel_for(0, static_cast<int64_t>(few.size()), 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const FewRows &branch = few[static_cast<size_t>(i)];
                float *own = to + branch.first * outputs;
                if (branch.other_a) {
                    ckernels::add_hadamard(own, from + branch.first * inputs, branch.rows, inputs, outputs,
                                           {branch.a, branch.b, branch.other_a, branch.other_b, branch.rank}, branch.scale);
                } else if (branch.a) {
                    ckernels::add_low_rank(own, from + branch.first * inputs, branch.rows, inputs, outputs, branch.rank, branch.a,
                                           branch.b, branch.scale, 0, outputs);
                }
                if (branch.gain) apply_gain(own, branch.rows, outputs, branch.gain, branch.bias);
            }
        });
    });
}

extern "C" CTTensor *ct_scale_rows(const CTTensor *x, int count, const int64_t *offsets, const CTTensor *const *gains) {
    return tensor_or_error([&]() -> at::Tensor {
        const at::Tensor &input = unbox(x);
        TORCH_CHECK(input.dim() == 2, "the input must be a matrix (got ", input.sizes(), ")");
        const int64_t size = input.size(1);
        at::Tensor result = input.clone(at::MemoryFormat::Contiguous);
        for (int i = 0; i < count; ++i) {
            TORCH_CHECK(0 <= offsets[i] && offsets[i] <= offsets[i + 1] && offsets[i + 1] <= input.size(0), "offsets of span ", i,
                        " are not within ", input.size(0), " rows");
            if (!gains[i] || offsets[i] == offsets[i + 1]) continue;
            const at::Tensor &gain = unbox(gains[i]);
            TORCH_CHECK(gain.numel() == size, "a gain of ", gain.numel(), " elements does not fit ", size, " inputs");
            if (is_plain(result) && is_plain(gain)) {
                apply_gain(mutable_floats(result) + offsets[i] * size, offsets[i + 1] - offsets[i], size, floats(gain), nullptr);
            } else {
                apply_gain(result.slice(0, offsets[i], offsets[i + 1]), gain, nullptr);
            }
        }
        return result;
    });
}
