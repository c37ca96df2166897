// The scales of 4-bit blocks as the kernels read them.
#pragma once

#include "Quantized.hpp"

namespace ctorch {

/// The scales of blocks by raw pointer: a tensor's accessor costs more than a block.
struct StoredScales {
    const float *plain = nullptr;
    const uint8_t *codes = nullptr;
    const float *nested = nullptr, *table = nullptr;
    float offset = 0;

    explicit StoredScales(const StoredMatrix &w) {
        if (!w.has_blocks()) return;
        const auto floats = [](const at::Tensor &t) { return static_cast<const float *>(t.const_data_ptr()); };
        if (!w.nested_scales.defined()) {
            plain = floats(w.scales);
            return;
        }
        codes = static_cast<const uint8_t *>(w.scales.const_data_ptr());
        nested = floats(w.nested_scales);
        table = floats(w.nested_table);
        offset = static_cast<float>(w.offset);
    }

    float operator[](int64_t block) const {
// Two roundings, as in the reference implementation.
#pragma STDC FP_CONTRACT OFF
        return plain ? plain[block] : table[codes[block]] * nested[block / 256] + offset;
    }
};

}  // namespace ctorch
