// The loss of rows of scores and its gradient, each row while it is in the cache, in fp32 on the CPU.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

bool is_for_loss_rows(const at::Tensor &scores, const at::Tensor &targets);

/// Adds Σ over rows of −log softmax(scale · s)[target], with label smoothing, to `total` (a double). Where `makes_gradient`, the
/// scores [rows, vocabulary] become their gradient. Throws where a target is none of the vocabulary.
void loss_rows(at::Tensor &scores, const at::Tensor &targets, double scale, double smoothing, bool makes_gradient,
               at::Tensor &total);

}  // namespace ctorch
