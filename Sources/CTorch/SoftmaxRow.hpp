// softmax of a row of scores, as attention makes it.
#pragma once

#include <cstdint>

namespace ctorch {

/// softmax(scale · s + bias) of `count` scores in place, on the thread that calls. The bias may be NULL; its numbers lie
/// `bias_stride` apart. What is −∞ becomes 0.
void softmax_row(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count);

}  // namespace ctorch
