// A running collective, for files that need not include c10d.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

struct CTProcessGroup;

namespace ctorch {

/// Starts to sum a contiguous CPU tensor over all ranks, in place.
/// Returns a function that waits for the end; it throws the operation's error, or that of a canceled group.
std::function<void()> start_sum(CTProcessGroup &group, const at::Tensor &tensor);

/// Starts to gather the bytes `own` [n] of all ranks, in their order, into `whole` [ranks · n], both uint8 on the CPU.
/// Returns a function that waits, as that of `start_sum`.
std::function<void()> start_gather(CTProcessGroup &group, const at::Tensor &own, const at::Tensor &whole);

/// This process's rank, and the number of ranks.
int rank_in(const CTProcessGroup &group);
int size_of(const CTProcessGroup &group);

}  // namespace ctorch
