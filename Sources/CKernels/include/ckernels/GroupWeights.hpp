// Group-wise quantized matrices (GPTQ's layout) by raw pointer.
#pragma once

#include <cstdint>

namespace ckernels {

/// A matrix [groups, outputs] of floats of one of three types.
struct FloatMatrix {
    enum class Type { fp16, fp32, fp64 } type;
    const void *data;
};

/// W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]) with g the group of input i; `zeros` are zero points.
struct GroupWeights {
    /// [inputs · bits / 32, outputs]: the values of one output along the inputs, lowest bits first.
    const uint32_t *packed;
    FloatMatrix scales;
    /// [groups, outputs · bits / 32], packed along the outputs; NULL where `zeros` are floats.
    const uint32_t *packed_zeros = nullptr;
    FloatMatrix zeros{FloatMatrix::Type::fp32, nullptr};
    /// [inputs], the group of each input; NULL where input i is in group i / group_size.
    const int32_t *order = nullptr;
    /// 2, 3, 4 or 8.
    int bits;
    int64_t group_size;
    /// Offset added to packed zero points: 1 in GPTQ's v1 format.
    int zero_offset = 0;
    int64_t inputs, outputs, groups;

    /// Values per block, a multiple of words; 3-bit values straddle words.
    int64_t values_of_a_block() const { return bits == 3 ? 32 : 32 / bits; }
    int64_t words_of_a_block() const { return bits == 3 ? 3 : 1; }
    /// Words per row of `packed_zeros`.
    int64_t zero_words() const { return outputs * bits / 32; }
};

/// Writes W[o, i] for i in [first, first + count) and o in [start, start + width) to `tile` [count, width], float or
/// double, on all threads; `first` and `count` are multiples of 32.
template <typename Number>
void dequantize_tile(const GroupWeights &, int64_t first, int64_t count, int64_t start, int64_t width, Number *tile);

}  // namespace ckernels
