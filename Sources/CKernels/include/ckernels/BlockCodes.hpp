// 4-bit codes of blocks of weights, bit-identical to bitsandbytes' on a CPU.
#pragma once

#include <array>
#include <cstdint>

namespace ckernels {

enum class BlockCode { nf4, fp4 };

/// The values of the sixteen codes.
const std::array<float, 16> &block_table(BlockCode);

/// Quantizes `count` values to two codes per byte, the first in the high half. `peaks` [⌈count / block⌉] receives the
/// blocks' absolute maxima. `block` is even.
void quantize_blocks(BlockCode, const float *values, int64_t count, int64_t block, uint8_t *bytes, float *peaks);

}  // namespace ckernels
