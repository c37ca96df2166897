// Quantized and 16-bit matrices by raw pointer.
#pragma once

#include <cstdint>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// W [outputs, inputs], row-major.
struct StoredWeights {
    enum class Format {
        /// Two 4-bit indices into `table` per byte, the first in the high half; one scale per `block` weights.
        blocks,
        /// int8 with one scale per row: q · scale / 127.
        rows,
        fp16,
        bf16,
        fp32,
        fp64,
    };

    Format format;
    const void *codes;
    /// [blocks], unless the scales are nested, or [outputs].
    const float *scales = nullptr;
    /// [16], the values of the 4-bit indices.
    const float *table = nullptr;
    /// Nested scales of blocks: scale = nested_table[scale_codes[block]] · nested_scales[block / 256] + offset.
    const uint8_t *scale_codes = nullptr;
    const float *nested_scales = nullptr, *nested_table = nullptr;
    float offset = 0;
    int64_t block = 64, outputs = 0, inputs = 0;

    const uint8_t *bytes() const { return static_cast<const uint8_t *>(codes); }
    const int8_t *integers() const { return static_cast<const int8_t *>(codes); }
    const Half *halves() const { return static_cast<const Half *>(codes); }
    const BFloat *bfloats() const { return static_cast<const BFloat *>(codes); }

    float scale_of_block(int64_t index) const {
// Two roundings, as in the reference implementation.
#pragma STDC FP_CONTRACT OFF
        return scales ? scales[index] : nested_table[scale_codes[index]] * nested_scales[index / 256] + offset;
    }
};

/// Dequantizes rows first ..< first + count of W into `tile` [count, inputs], on all threads.
void dequantize_rows(const StoredWeights &, int64_t first, int64_t count, float *tile);

}  // namespace ckernels
