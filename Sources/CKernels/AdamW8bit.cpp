#include "ckernels/AdamW8bit.hpp"

#include <algorithm>
#include <cmath>

#include "ckernels/Parallel.hpp"

namespace ckernels {

/// One block of 256 moments at a time is dequantized to fp32.
void update_by_adamw(float *values, const float *gradients, const Moments &first, const Moments &second, int64_t count,
                     const AdamWRates &rates) {
    constexpr int64_t size = DynamicCode::block;
    const int64_t blocks = (count + size - 1) / size;
    parallel_for(0, blocks, 64, [&](int64_t from, int64_t to) {
        float m[size], v[size];
        for (int64_t b = from; b < to; ++b) {
            const int64_t start = b * size, length = std::min(size, count - start);
            const float peak1 = first.peaks[b], peak2 = second.peaks[b];
            for (int64_t i = 0; i < length; ++i) {
                m[i] = first.code.number(first.codes[start + i]) * peak1;
                v[i] = second.code.number(second.codes[start + i]) * peak2;
            }
            const float *g = gradients + start;
            float *x = values + start;
            for (int64_t i = 0; i < length; ++i) {
                m[i] = m[i] * rates.beta1 + rates.rest1 * g[i];
                v[i] = v[i] * rates.beta2 + rates.rest2 * g[i] * g[i];
                const float size_of_step = std::sqrt(v[i]) / rates.root + rates.epsilon;
                x[i] = x[i] * rates.decay + rates.step * (m[i] / size_of_step);
            }
            first.peaks[b] = first.code.quantize(m, length, first.codes + start);
            second.peaks[b] = second.code.quantize(v, length, second.codes + start);
        }
    });
}

}  // namespace ckernels
