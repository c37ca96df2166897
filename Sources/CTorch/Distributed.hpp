// A running collective, for files that need not include c10d.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

struct CTProcessGroup;

namespace ctorch {

/// Starts to sum a contiguous CPU tensor over all ranks, in place.
/// Returns a function that waits for the end; it throws the operation's error, or that of a canceled group.
std::function<void()> start_sum(CTProcessGroup &group, const at::Tensor &tensor);

}  // namespace ctorch
