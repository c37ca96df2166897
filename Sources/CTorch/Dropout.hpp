#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// x ⊙ mask / (1 − p), where the mask's element i is a function of (seed, i) alone, i counting x's
/// elements in row-major order: the same for every thread count, each time it is asked. (A GPU has masks of its own.)
at::Tensor dropped(const at::Tensor &x, double probability, uint64_t seed);

/// The same, written over x, which has to be contiguous.
void drop_in_place(at::Tensor &x, double probability, uint64_t seed);

/// Elements first ..< first + count of such a tensor from x to y, which may be the same, on the thread that calls.
void drop_part(const float *x, float *y, int64_t first, int64_t count, double probability, uint64_t seed);

}  // namespace ctorch
