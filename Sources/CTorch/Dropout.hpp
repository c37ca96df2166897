#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// x ⊙ mask / (1 − p), where the mask's element i is a function of (seed, i) alone, with i in row-major order: the
/// same for every thread count and every call. (A GPU has its own masks.)
at::Tensor dropped(const at::Tensor &x, double probability, uint64_t seed);

/// In place; x must be contiguous.
void drop_in_place(at::Tensor &x, double probability, uint64_t seed);

}  // namespace ctorch
