// Projections of the few rows of a step of generation.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "ctorch.h"

namespace ctorch {

/// x Wᵀ + bias + scale · x aᵀ bᵀ by each of the projections, where the kernels for few rows take all of them.
std::optional<std::vector<at::Tensor>> few_row_projections(const at::Tensor &x, const std::vector<CTProjection> &);

}  // namespace ctorch
