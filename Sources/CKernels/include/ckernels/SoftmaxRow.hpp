// The softmax of a row of attention scores.
#pragma once

#include <cstdint>

namespace ckernels {

/// softmax(scale · s + bias) of `count` scores in place, on the calling thread. The bias may be NULL; its stride is
/// `bias_stride`. A score of −∞ becomes 0.
void softmax_row(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count);

}  // namespace ckernels
