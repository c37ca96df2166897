// 8-bit codes of floats: the dynamic map of 8-bit optimizers (Dettmers et al. 2022, section 1.2).
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <vector>

namespace ctorch {

/// 256 values in decades, with finer steps in the larger ones; in −1 … 1, or unsigned in 0 … 1 with twice as many.
at::Tensor dynamic_map(bool is_signed);

/// Codes of a block's values divided by their absolute maximum, as bitsandbytes finds them on a CPU: with 65,536 bins
/// of −1 … 1 and the map's midpoints.
class DynamicCode {
public:
    static constexpr int64_t block = 256;

    explicit DynamicCode(bool is_signed);
    /// Built once per process.
    static const DynamicCode &shared(bool is_signed);

    float number(uint8_t code) const { return numbers[code]; }

    /// Quantizes up to 256 values.
    /// - Returns: their absolute maximum.
    float quantize(const float *values, int64_t count, uint8_t *codes) const;

private:
    std::array<float, 256> numbers;
    std::vector<uint8_t> codes;
};

}  // namespace ctorch
