// Cross-entropy of rows of logits and its gradient, each row while it is in the cache, in fp32 on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

bool is_for_loss_rows(const at::Tensor &scores, const at::Tensor &targets);

/// Adds Σ over rows of −log softmax(scale · s)[target], with label smoothing, to `total` (a double). If
/// `makes_gradient`, the logits [rows, vocabulary] are overwritten by their gradient. Throws if a target is outside
/// the vocabulary.
void loss_rows(at::Tensor &scores, const at::Tensor &targets, double scale, double smoothing, bool makes_gradient,
               at::Tensor &total);

}  // namespace ctorch
