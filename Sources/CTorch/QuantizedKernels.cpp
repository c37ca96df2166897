// Dequantization on the CPU. The library is compiled for any x86-64 or arm64; AVX2 versions are selected at run time.
#include "Clones.hpp"
#include "Parallel.hpp"
#include "Quantized.hpp"
#include "StoredScales.hpp"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <ATen/ops/from_blob.h>

#include <array>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ctorch {
namespace {

const float *floats(const at::Tensor &tensor) { return static_cast<const float *>(tensor.const_data_ptr()); }
const uint8_t *bytes(const at::Tensor &tensor) { return static_cast<const uint8_t *>(tensor.const_data_ptr()); }

/// The values of both 4-bit codes of each byte.
struct PairTable {
    std::array<float, 512> pairs;

    explicit PairTable(const float *table) {
        for (size_t byte = 0; byte < 256; ++byte) {
            pairs[2 * byte] = table[byte >> 4];
            pairs[2 * byte + 1] = table[byte & 15];
        }
    }
};

/// Weights start..<end of the flattened matrix.
void dequantize_blocks(const StoredMatrix &w, const PairTable &table, int64_t start, int64_t end, float *out) {
    const uint8_t *codes = bytes(w.codes);
    const StoredScales scales(w);
    int64_t i = start;
    while (i < end) {
        const int64_t block = i / w.block, stop = std::min(end, (block + 1) * w.block);
        const float scale = scales[block];
        if (i % 2 == 1) *out++ = table.pairs[2 * codes[i++ / 2] + 1] * scale;
        for (; i + 1 < stop; i += 2, out += 2) {
            const float *pair = &table.pairs[2 * codes[i / 2]];
            out[0] = pair[0] * scale;
            out[1] = pair[1] * scale;
        }
        if (i < stop) *out++ = table.pairs[2 * codes[i++ / 2]] * scale;
    }
}

#if defined(__x86_64__)

CT_AVX2 int64_t widen_by_eight(const uint16_t *halves, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i *>(halves + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(eight));
    }
    return i;
}

#endif

void widen(const uint16_t *halves, int64_t count, float *out) {
    int64_t i = 0;
#if defined(__x86_64__)
    if (has_avx2()) i = widen_by_eight(halves, count, out);
#endif
    for (; i < count; ++i) out[i] = static_cast<float>(c10::Half(halves[i], c10::Half::from_bits()));
}

void dequantize_some_rows(const StoredMatrix &w, const PairTable *table, int64_t first, int64_t end, float *out) {
    if (w.has_blocks()) return dequantize_blocks(w, *table, first * w.inputs, end * w.inputs, out);
    if (w.has_rows()) {
        const auto *codes = static_cast<const int8_t *>(w.codes.const_data_ptr());
        for (int64_t row = first; row < end; ++row, out += w.inputs) {
            const float scale = floats(w.scales)[row] / 127.0f;
            for (int64_t i = 0; i < w.inputs; ++i) out[i] = static_cast<float>(codes[row * w.inputs + i]) * scale;
        }
        return;
    }
    const int64_t start = first * w.inputs, count = (end - first) * w.inputs;
    if (w.codes.scalar_type() == at::kHalf) {
        widen(static_cast<const uint16_t *>(w.codes.const_data_ptr()) + start, count, out);
    } else if (w.codes.scalar_type() == at::kBFloat16) {
        const auto *codes = static_cast<const uint16_t *>(w.codes.const_data_ptr()) + start;
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t bits = static_cast<uint32_t>(codes[i]) << 16;
            std::memcpy(out + i, &bits, sizeof bits);
        }
    } else {
        at::Tensor target = at::from_blob(out, {count}, at::kFloat);
        target.copy_(w.codes.reshape({-1}).slice(0, start, start + count));
    }
}

/// Minimum rows of W per thread.
int64_t grain(const StoredMatrix &w) { return std::max<int64_t>(1, 65536 / w.inputs); }

}  // namespace

void dequantize_rows(const StoredMatrix &w, int64_t first, int64_t count, float *tile) {
    std::optional<PairTable> table;
    if (w.has_blocks()) table.emplace(floats(w.table));
    ctorch::parallel_for(0, count, grain(w), [&](int64_t from, int64_t to) {
        dequantize_some_rows(w, table ? &*table : nullptr, first + from, first + to, tile + from * w.inputs);
    });
}

}  // namespace ctorch
