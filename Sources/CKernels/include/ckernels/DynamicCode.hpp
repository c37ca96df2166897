// 8-bit codes of floats, as 8-bit optimizers store their moments (Dettmers et al. 2022, section 1.2).
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace ckernels {

/// Codes of a block's values divided by their absolute maximum, as bitsandbytes finds them on a CPU: with 65,536 bins
/// of −1 … 1 and the map's midpoints.
class DynamicCode {
public:
    static constexpr int64_t block = 256;

    /// - Parameter map: 256 values in ascending order, in −1 … 1.
    explicit DynamicCode(const float *map);

    float number(uint8_t code) const { return numbers[code]; }

    /// Quantizes up to 256 values.
    /// - Returns: their absolute maximum.
    float quantize(const float *values, int64_t count, uint8_t *codes) const;

private:
    std::array<float, 256> numbers;
    std::vector<uint8_t> codes;
};

}  // namespace ckernels
