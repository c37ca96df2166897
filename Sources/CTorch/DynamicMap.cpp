#include "DynamicMap.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>


#include <algorithm>
#include <cmath>
#include <cstring>

namespace ctorch {

at::Tensor dynamic_map(bool is_signed) {
    std::vector<at::Tensor> parts;
    const std::array<double, 7> decades = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
    for (size_t i = 0; i < decades.size(); ++i) {
        at::Tensor bounds = at::linspace(0.1, 1, (is_signed ? 1 << i : 2 << i) + 1, at::kFloat);
        at::Tensor means = (bounds.slice(0, 0, -1) + bounds.slice(0, 1)) / 2.0;
        parts.push_back(means * decades[i]);
        if (is_signed) parts.push_back(means * -decades[i]);
    }
    parts.push_back(at::tensor({0.0f, 1.0f}));
    return std::get<0>(at::cat(parts).sort());
}

DynamicCode::DynamicCode(bool is_signed) : numbers(), codes(65536) {
    at::Tensor map = dynamic_map(is_signed);
    std::memcpy(numbers.data(), map.const_data_ptr(), sizeof numbers);
    for (size_t bin = 0; bin < codes.size(); ++bin) {
        const float value = static_cast<float>(bin) / 32767.5f - 1.0f;
        // The last entry that isn't above the value, or the next one if that is nearer.
        const auto above = std::upper_bound(numbers.begin(), numbers.end(), value) - numbers.begin();
        const auto below = static_cast<size_t>(std::max<std::ptrdiff_t>(0, above - 1)), next = std::min<size_t>(255, below + 1);
        const bool is_nearer = std::fabs(value - numbers[next]) < std::fabs(value - numbers[below]);
        codes[bin] = static_cast<uint8_t>(is_nearer ? next : below);
    }
}

const DynamicCode &DynamicCode::shared(bool is_signed) {
    static const DynamicCode with_signs(true), without(false);
    return is_signed ? with_signs : without;
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

}  // namespace ctorch
