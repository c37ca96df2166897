#include "ckernels/SoftmaxRow.hpp"

#include <limits>

#include "Exponential.hpp"
#include "Simd.hpp"

namespace {

constexpr int lanes = 16;

/// e^x, flushed to 0 below −87.
inline float power_of(float x) { return x < -87.0f ? 0.0f : ckernels::exponential(x); }

CK_CLONES void softmax(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count) {
    if (!bias) {
        for (int64_t i = 0; i < count; ++i) s[i] *= scale;
    } else if (bias_stride == 1) {
        for (int64_t i = 0; i < count; ++i) s[i] = s[i] * scale + bias[i];
    } else {
        for (int64_t i = 0; i < count; ++i) s[i] = s[i] * scale + bias[i * bias_stride];
    }
    float most[lanes];
    for (float &one : most) one = -std::numeric_limits<float>::infinity();
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (int k = 0; k < lanes; ++k) most[k] = s[i + k] > most[k] ? s[i + k] : most[k];
    }
    for (; i < count; ++i) most[0] = s[i] > most[0] ? s[i] : most[0];
    const float largest = ckernels::largest_of(most);
    float sums[lanes] = {};
    for (i = 0; i + lanes <= count; i += lanes) {
        for (int k = 0; k < lanes; ++k) {
            s[i + k] = power_of(s[i + k] - largest);
            sums[k] += s[i + k];
        }
    }
    for (; i < count; ++i) {
        s[i] = power_of(s[i] - largest);
        sums[0] += s[i];
    }
    const float factor = 1 / ckernels::sum_of(sums);
    for (int64_t j = 0; j < count; ++j) s[j] *= factor;
}

}  // namespace

namespace ckernels {

void softmax_row(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count) {
    softmax(s, bias, bias_stride, scale, count);
}

}  // namespace ckernels
