#include "ckernels/DynamicCode.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace ckernels {

DynamicCode::DynamicCode(const float *map) : numbers(), codes(65536) {
    std::copy_n(map, numbers.size(), numbers.begin());
    for (size_t bin = 0; bin < codes.size(); ++bin) {
        const float value = static_cast<float>(bin) / 32767.5f - 1.0f;
        // The last entry that isn't above the value, or the next one if that is nearer.
        const auto above = std::upper_bound(numbers.begin(), numbers.end(), value) - numbers.begin();
        const auto below = static_cast<size_t>(std::max<std::ptrdiff_t>(0, above - 1)), next = std::min<size_t>(255, below + 1);
        const bool is_nearer = std::fabs(value - numbers[next]) < std::fabs(value - numbers[below]);
        codes[bin] = static_cast<uint8_t>(is_nearer ? next : below);
    }
}

float DynamicCode::quantize(const float *values, int64_t count, uint8_t *result) const {
    float peak = 0;
    for (int64_t i = 0; i < count; ++i) peak = std::max(peak, std::fabs(values[i]));
    if (peak == 0) {
        std::fill(result, result + count, uint8_t{0});
        return peak;
    }
    const float inverse = 1.0f / peak;
    for (int64_t i = 0; i < count; ++i) {
        const float bin = std::floor((values[i] * inverse + 1.0f) * 32767.5f + 0.5f);
        // This order maps NaN to 0: the loss and the gradient norm detect NaN.
        result[i] = codes[static_cast<size_t>(std::min(65535.0f, std::max(0.0f, bin)))];
    }
    return peak;
}

}  // namespace ckernels
