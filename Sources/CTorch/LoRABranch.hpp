// The LoRA branch of a projection, for the files that add it.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// y + scale · drop(x) Aᵀ Bᵀ with x [..., in], A [r, in], B [out, r], in place in y [..., out] where its type is that of the
/// computation.
at::Tensor with_lora_branch(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b, double scale,
                            double dropout = 0, uint64_t seed = 0);

/// Whether the few-row kernel adds the branch: nothing needs a gradient.
bool is_for_few(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b);

/// Throws if the shapes don't fit.
void check_factors(const at::Tensor &y, const at::Tensor &x, const at::Tensor &a, const at::Tensor &b);

}  // namespace ctorch
