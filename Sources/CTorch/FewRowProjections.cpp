#include "FewRowProjections.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "Bridge.hpp"
#include "Elements.hpp"
#include "FewRows.hpp"
#include "GroupQuantized.hpp"
#include "Precision.hpp"
#include "Quantized.hpp"
#include "ckernels/FewRowProjections.hpp"
#include "ckernels/GroupProduct.hpp"
#include "ckernels/StoredProduct.hpp"

using namespace ctorch;

namespace {

/// A projection and its weight.
struct Part {
    const CTProjection &given;
    std::optional<StoredMatrix> stored;
    std::optional<GroupMatrix> group;
    int64_t outputs = 0;

    explicit Part(const CTProjection &given) : given(given) {
        if (given.weight) {
            outputs = unbox(given.weight).size(0);
        } else if (given.group.packed) {
            group = group_matrix(&given.group);
            outputs = group->outputs();
        } else {
            stored = stored_matrix(&given.stored);
            outputs = stored->outputs;
        }
    }

    ckernels::FewRowProjection with_output(const at::Tensor &y) const {
        ckernels::FewRowProjection projection{.y = mutable_floats(y), .outputs = outputs};
        if (stored) {
            projection.stored = stored->weights();
        } else if (group) {
            projection.group = group->weights();
        } else {
            projection.weight = floats(unbox(given.weight));
            projection.stride = unbox(given.weight).stride(0);
        }
        if (given.bias) projection.bias = floats(unbox(given.bias));
        if (given.a) {
            projection.a = floats(unbox(given.a));
            projection.b = floats(unbox(given.b));
            projection.rank = unbox(given.a).size(0);
            projection.scale = static_cast<float>(given.scale);
        }
        return projection;
    }

    /// Whether the GEMV kernels read the matrix and the bias.
    bool is_for_few_rows(const at::Tensor &x) const {
        const at::Tensor &bias = unbox(given.bias);
        const int64_t inputs = x.size(-1), rows = x.numel() / inputs;
        if (!stored && !group) return ctorch::is_for_few_rows(x, unbox(given.weight), bias);
        if (bias.defined() && !(is_plain(bias) && bias.numel() == outputs)) return false;
        if (stored) return stored->inputs == inputs && stored->codes.is_cpu() && rows <= ckernels::few_stored_rows;
        return group->inputs() == inputs && group->packed.is_cpu() && rows <= ckernels::few_group_rows &&
               ckernels::GroupProduct::supports(group->weights());
    }
};

/// Whether the GEMV kernels apply to all of them.
bool are_for_few_rows(const at::Tensor &x, const std::vector<Part> &parts) {
    if (at::GradMode::is_enabled() || !is_plain(x) || x.dim() < 1 || x.size(-1) == 0 || compute_type(x) != at::kFloat)
        return false;
    const int64_t inputs = x.size(-1), rows = x.numel() / inputs;
    if (rows == 0) return false;
    for (const Part &part : parts) {
        if (!part.is_for_few_rows(x)) return false;
        if (!part.given.a) continue;
        if (part.given.dropout > 0) return false;
        const at::Tensor &a = unbox(part.given.a), &b = unbox(part.given.b);
        if (!is_plain(a) || !is_plain(b) || a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(1) || a.size(1) != inputs ||
            b.size(0) != part.outputs) {
            return false;
        }
    }
    return true;
}

}  // namespace

namespace ctorch {

std::optional<std::vector<at::Tensor>> few_row_projections(const at::Tensor &x, const std::vector<CTProjection> &given) {
    const std::vector<Part> parts(given.begin(), given.end());
    if (!are_for_few_rows(x, parts)) return std::nullopt;
    const int64_t inputs = x.size(-1);
    auto shape = x.sizes().vec();
    std::vector<at::Tensor> results;
    std::vector<ckernels::FewRowProjection> projections;
    for (const Part &part : parts) {
        shape.back() = part.outputs;
        results.push_back(at::empty(shape, x.options()));
        projections.push_back(part.with_output(results.back()));
    }
    ckernels::few_row_projections(floats(x), x.numel() / inputs, inputs, projections);
    return results;
}

}  // namespace ctorch
