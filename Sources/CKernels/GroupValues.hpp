// How the parts of group-wise quantized matrices are read.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "Simd.hpp"
#include "ckernels/GroupWeights.hpp"
#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// Values per block and words per block: 3-bit values straddle words.
template <int BITS> struct GroupBlock {
    static constexpr int words = BITS == 3 ? 3 : 1;
    static constexpr int values = words * 32 / BITS;
};

/// Value k of a block whose word j is `words[j * stride]`.
template <int BITS, int K> CK_INLINED int32_t group_value(const uint32_t *words, int64_t stride) {
    constexpr int word = K * BITS / 32, shift = K * BITS % 32;
    uint32_t bits = words[word * stride] >> shift;
    if constexpr (shift + BITS > 32) bits |= words[(word + 1) * stride] << (32 - shift);
    return static_cast<int32_t>(bits & ((1u << BITS) - 1));
}

/// Row `row` of a matrix [groups, outputs], from column `start`.
template <typename T>
void read_row(const FloatMatrix &matrix, int64_t outputs, int64_t row, int64_t start, int64_t width, T *to) {
    const int64_t offset = row * outputs + start;
    switch (matrix.type) {
        case FloatMatrix::Type::fp16: {
            const auto *from = static_cast<const Half *>(matrix.data) + offset;
            if constexpr (std::is_same_v<T, float>) {
                upcast(from, to, width);
            } else {
                for (int64_t i = 0; i < width; ++i) to[i] = from[i];
            }
            break;
        }
        case FloatMatrix::Type::fp32: std::copy_n(static_cast<const float *>(matrix.data) + offset, width, to); break;
        case FloatMatrix::Type::fp64: std::copy_n(static_cast<const double *>(matrix.data) + offset, width, to);
    }
}

/// Row `group` of the zero points, packed or not.
template <typename T> void read_zeros(const GroupWeights &w, int64_t group, int64_t start, int64_t width, T *to) {
    if (w.packed_zeros == nullptr) return read_row(w.zeros, w.outputs, group, start, width, to);
    const uint32_t *row = w.packed_zeros + group * w.zero_words();
    const uint32_t mask = (1u << w.bits) - 1;
    for (int64_t i = 0; i < width; ++i) {
        const int64_t bit = (start + i) * w.bits, word = bit / 32, shift = bit % 32;
        uint32_t value = row[word] >> shift;
        if (shift + w.bits > 32) value |= row[word + 1] << (32 - shift);
        // GPTQ's v1 format stores z − 1, which is all ones for 0.
        to[i] = static_cast<T>((value + static_cast<uint32_t>(w.zero_offset)) & mask);
    }
}

}  // namespace ckernels
