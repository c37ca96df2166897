#include "ckernels/BlockCodes.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "ckernels/Parallel.hpp"

namespace {

using ckernels::BlockCode;

/// NormalFloat's values in order (Dettmers et al. 2023, appendix E), as the exact decimal expansions of their floats.
constexpr std::array<float, 16> normal_floats = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/// FP4: a sign, two exponent bits and one fraction bit, over the maximum: twelfths of 0, 1/16, 8, 12, 4, 6, 2 and 3.
constexpr std::array<float, 16> small_floats = {
    0.0f, 0.0625f / 12.0f,  8.0f / 12.0f,  1.0f,  4.0f / 12.0f,  0.5f,  2.0f / 12.0f,  0.25f,
    0.0f, -0.0625f / 12.0f, -8.0f / 12.0f, -1.0f, -4.0f / 12.0f, -0.5f, -2.0f / 12.0f, -0.25f,
};

/// Codes in ascending order of their values. (Of FP4's two zeros the positive one comes first.)
constexpr std::array<uint8_t, 16> normal_order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr std::array<uint8_t, 16> small_order = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

struct Code {
    std::array<float, 16> table;
    std::array<uint8_t, 16> order;
    std::array<float, 15> midpoints;

    explicit Code(BlockCode kind)
        : table(kind == BlockCode::nf4 ? normal_floats : small_floats),
          order(kind == BlockCode::nf4 ? normal_order : small_order), midpoints() {
        for (size_t i = 0; i < 15; ++i) midpoints[i] = (table[order[i]] + table[order[i + 1]]) / 2;
    }

    /// The code of the nearest value; ties go to the lower one.
    uint8_t nearest(float value) const {
        size_t index = 0;
        for (float midpoint : midpoints) index += value > midpoint ? 1 : 0;
        return order[index];
    }
};

}  // namespace

namespace ckernels {

const std::array<float, 16> &block_table(BlockCode kind) { return kind == BlockCode::nf4 ? normal_floats : small_floats; }

void quantize_blocks(BlockCode kind, const float *values, int64_t count, int64_t block, uint8_t *bytes, float *peaks) {
    const int64_t blocks = (count + block - 1) / block;
    const Code code(kind);
    parallel_for(0, blocks, 1024, [&](int64_t from, int64_t to) {
        for (int64_t b = from; b < to; ++b) {
            const int64_t start = b * block, end = std::min(count, start + block);
            float peak = 0;
            for (int64_t i = start; i < end; ++i) peak = std::max(peak, std::fabs(values[i]));
            const bool is_whole = end - start == block;
            // bitsandbytes stores 1e-38 for a last block of zeros, and divides there instead of multiplying.
            if (!is_whole) peak = std::max(peak, 1e-38f);
            peaks[b] = peak;
            const float inverse = 1.0f / std::max(peak, 1e-38f);
            auto scaled = [&](int64_t i) {
                if (i >= count) return 0.0f;
                return std::clamp(is_whole ? values[i] * inverse : values[i] / peak, -1.0f, 1.0f);
            };
            for (int64_t i = start; i < end; i += 2) {
                bytes[i / 2] = static_cast<uint8_t>(code.nearest(scaled(i)) << 4 | code.nearest(scaled(i + 1)));
            }
        }
    });
}

}  // namespace ckernels
