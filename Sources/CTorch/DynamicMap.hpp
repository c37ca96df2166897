// Numbers in bytes: the dynamic map of 8-bit optimizers (Dettmers et al. 2022, section 1.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

namespace ctorch {

/// 256 numbers in decades, with more steps the larger they are; in −1 … 1, or in 0 … 1 with twice as many.
at::Tensor dynamic_map(bool is_signed);

/// The codes of blocks' numbers over their largest, as bitsandbytes finds them on a CPU: by 65,536 bins of −1 … 1 and
/// the numbers at their middles.
class DynamicCode {
public:
    static constexpr int64_t block = 256;

    explicit DynamicCode(bool is_signed);
    /// Made once a process.
    static const DynamicCode &shared(bool is_signed);

    float number(uint8_t code) const { return numbers[code]; }

    /// Codes of up to 256 numbers.
    /// - Returns: their largest.
    float quantize(const float *values, int64_t count, uint8_t *codes) const;

private:
    std::array<float, 256> numbers;
    std::vector<uint8_t> codes;
};

}  // namespace ctorch
