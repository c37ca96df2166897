// Cross-entropy of rows of logits and its gradient, each row while it is in the cache.
#pragma once

#include <cstdint>

namespace ckernels {

/// Σ over rows of −log softmax(scale · s)[target] with label smoothing, for scores [rows, vocabulary] and targets within
/// the vocabulary. If `makes_gradient`, the scores are overwritten by their gradient.
double loss_rows(float *scores, const int64_t *targets, int64_t rows, int64_t vocabulary, double scale, double smoothing,
                 bool makes_gradient);

}  // namespace ckernels
