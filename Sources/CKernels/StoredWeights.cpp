// Dequantization of quantized and 16-bit matrices.
#include "ckernels/StoredWeights.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "ckernels/Parallel.hpp"

namespace ckernels {
namespace {

using Format = StoredWeights::Format;

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
void dequantize_blocks(const StoredWeights &w, const PairTable &table, int64_t start, int64_t end, float *out) {
    const uint8_t *codes = w.bytes();
    int64_t i = start;
    while (i < end) {
        const int64_t block = i / w.block, stop = std::min(end, (block + 1) * w.block);
        const float scale = w.scale_of_block(block);
        if (i % 2 == 1) *out++ = table.pairs[2 * codes[i++ / 2] + 1] * scale;
        for (; i + 1 < stop; i += 2, out += 2) {
            const float *pair = &table.pairs[2 * codes[i / 2]];
            out[0] = pair[0] * scale;
            out[1] = pair[1] * scale;
        }
        if (i < stop) *out++ = table.pairs[2 * codes[i++ / 2]] * scale;
    }
}

void dequantize_some_rows(const StoredWeights &w, const PairTable *table, int64_t first, int64_t end, float *out) {
    const int64_t start = first * w.inputs, count = (end - first) * w.inputs;
    switch (w.format) {
        case Format::blocks: return dequantize_blocks(w, *table, start, end * w.inputs, out);
        case Format::rows:
            for (int64_t row = first; row < end; ++row, out += w.inputs) {
                const float scale = w.scales[row] / 127.0f;
                for (int64_t i = 0; i < w.inputs; ++i) out[i] = static_cast<float>(w.integers()[row * w.inputs + i]) * scale;
            }
            return;
        case Format::fp16: return upcast(w.halves() + start, out, count);
        case Format::bf16: return upcast(w.bfloats() + start, out, count);
        case Format::fp32: std::copy_n(static_cast<const float *>(w.codes) + start, count, out); return;
        case Format::fp64:
            std::transform(static_cast<const double *>(w.codes) + start, static_cast<const double *>(w.codes) + start + count,
                           out, [](double x) { return static_cast<float>(x); });
    }
}

/// Minimum rows of W per thread.
int64_t grain(const StoredWeights &w) { return std::max<int64_t>(1, 65536 / w.inputs); }

}  // namespace

void dequantize_rows(const StoredWeights &w, int64_t first, int64_t count, float *tile) {
    std::optional<PairTable> table;
    if (w.format == Format::blocks) table.emplace(w.table);
    parallel_for(0, count, grain(w), [&](int64_t from, int64_t to) {
        dequantize_some_rows(w, table ? &*table : nullptr, first + from, first + to, tile + from * w.inputs);
    });
}

}  // namespace ckernels
