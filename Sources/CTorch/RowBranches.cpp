// The adapters of a mixed-adapter batch at one projection (Punica, Chen et al. 2023; S-LoRA, Sheng et al. 2023): LoRA branches and
// gains of outputs, each for rows of its own, in one call.
#include <ATen/ops/add.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sub.h>

#include "Bridge.hpp"
#include "Elements.hpp"
#include "LoRABranch.hpp"
#include "Precision.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/Parallel.hpp"

using namespace ctorch;

namespace {

/// Maximum rows of a branch that one thread computes; more are divided among the threads, or use blocked GEMMs.
constexpr int64_t rows_of_a_branch = 8;

const at::Tensor *optional_pointer(const CTTensor *x) { return x ? &unbox(x) : nullptr; }

/// A branch of few rows in fp32. The pointers are NULL where a tensor is absent.
struct FewRows {
    int64_t first, rows, rank;
    const float *a, *b, *gain, *bias;
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

/// Applies a branch of many rows, or of another type than fp32.
void apply(const at::Tensor &y, const at::Tensor &x, const at::Tensor *bias, const CTRowBranch &branch) {
    const at::Tensor part = y.slice(0, branch.first, branch.end);
    if (branch.a) {
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
                             *gain = optional_pointer(branch.gain);
            TORCH_CHECK(!a == !b, "a LoRA branch needs both factors");
            if (a) check_factors(output, input, *a, *b);
            TORCH_CHECK(!gain || gain->numel() == outputs, "a gain of ", gain ? gain->numel() : 0, " elements does not fit ",
                        outputs, " outputs");
            if (branch.first == branch.end || (!a && !gain)) continue;
            const bool keeps_bias = gain && branch.keeps_bias && shift;
            const bool is_few = branch.end - branch.first <= rows_of_a_branch && is_plain(output) && is_plain(input) &&
                                !is_half(compute_type(output)) && (!a || is_for_few(output, input, *a, *b)) &&
                                (!gain || is_plain(*gain)) && (!keeps_bias || is_plain_bias);
            if (is_few) {
                few.push_back({branch.first, branch.end - branch.first, a ? a->size(0) : 0, a ? floats(*a) : nullptr,
                               a ? floats(*b) : nullptr, gain ? floats(*gain) : nullptr, keeps_bias ? floats(*shift) : nullptr,
                               static_cast<float>(branch.scale)});
            } else {
                apply(output, input, shift, branch);
            }
        }
        if (few.empty()) return;
        float *to = mutable_floats(output);
        const float *from = floats(input);
        ckernels::parallel_for(0, static_cast<int64_t>(few.size()), 1, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const FewRows &branch = few[static_cast<size_t>(i)];
                float *own = to + branch.first * outputs;
                if (branch.a) {
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
