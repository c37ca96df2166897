// Fused projections of the few rows of a decode step.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "ctorch.h"

namespace ctorch {

/// x Wᵀ + bias + scale · x aᵀ bᵀ for each projection, if the GEMV kernels apply to all of them.
std::optional<std::vector<at::Tensor>> few_row_projections(const at::Tensor &x, const std::vector<CTProjection> &);

}  // namespace ctorch
