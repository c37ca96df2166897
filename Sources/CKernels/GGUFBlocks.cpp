#include "ckernels/GGUFBlocks.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "Simd.hpp"
#include "ckernels/HalfPrecision.hpp"
#include "ckernels/Parallel.hpp"

// Without fused operations, every processor writes the same file.
#pragma STDC FP_CONTRACT OFF

namespace {

using ckernels::GGUFBlocks;

/// The bits of x rounded to fp16; x is limited to its range.
uint16_t half_bits(float x) {
    // The nearest fp16 as a float has its bits without the last 13, apart from the bias.
    const float nearest = ckernels::rounded_to_half(std::clamp(x, -65504.0f, 65504.0f));
    uint32_t all;
    const float scaled = std::fabs(nearest) * 0x1p-112f;
    std::memcpy(&all, &scaled, sizeof all);
    return static_cast<uint16_t>((std::signbit(nearest) ? 0x8000 : 0) | all >> 13);
}

float write_half(float x, uint8_t *out) {
    const uint16_t bits = half_bits(x);
    out[0] = static_cast<uint8_t>(bits);
    out[1] = static_cast<uint8_t>(bits >> 8);
    return ckernels::Half{bits};
}

/// The nearest integer, ties to even, of a number within ±2²²: adding 1.5 · 2²³ leaves no fraction bits.
CK_INLINED float whole(float x) { return x + 0x1.8p23f - 0x1.8p23f; }

/// The nearest integer within limits.
int nearest(float x, int low, int high) {
    return static_cast<int>(whole(std::clamp(x, static_cast<float>(low), static_cast<float>(high))));
}

/// f(0) + … + f(count − 1) in eight lanes, which compilers turn into vectors.
template <int count, typename Term> CK_INLINED float sum(const Term &f) {
    float lanes[8] = {};
    for (int i = 0; i < count; i += 8) {
        for (int lane = 0; lane < 8; ++lane) lanes[lane] += f(i + lane);
    }
    for (int width = 4; width > 0; width /= 2) {
        for (int lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    return lanes[0];
}

float reciprocal(float x) { return x == 0 ? 0 : 1 / x; }

/// The value of largest magnitude.
float peak(const float *x, int count) {
    float largest = 0;
    for (int i = 0; i < count; ++i) {
        if (std::fabs(x[i]) > std::fabs(largest)) largest = x[i];
    }
    return largest;
}

/// Halves of bytes, the first 16 values low; the fifth bits of all 32 in four bytes if there is space for them.
void pack_32(const int *codes, uint8_t *halves, uint8_t *fifth) {
    for (int i = 0; i < 16; ++i) halves[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
    if (!fifth) return;
    std::memset(fifth, 0, 4);
    for (int i = 0; i < 32; ++i) fifth[i / 8] |= static_cast<uint8_t>((codes[i] >> 4 & 1) << (i % 8));
}

/// The scale makes the value of largest magnitude exact; halves round up, as in llama.cpp.
void symmetric_32(const float *x, int bits, uint8_t *out) {
    const int zero = 1 << (bits - 1);
    const float scale = peak(x, 32) / -static_cast<float>(zero), factor = reciprocal(scale);
    write_half(scale, out);
    int codes[32];
    for (int i = 0; i < 32; ++i) {
        codes[i] =
            static_cast<int>(std::clamp(x[i] * factor + static_cast<float>(zero) + 0.5f, 0.0f, static_cast<float>(2 * zero - 1)));
    }
    pack_32(codes, out + (bits == 5 ? 6 : 2), bits == 5 ? out + 2 : nullptr);
}

/// From the least to the largest value.
void range_32(const float *x, int bits, uint8_t *out) {
    const auto [least, largest] = std::minmax_element(x, x + 32);
    const int top = (1 << bits) - 1;
    const float scale = (*largest - *least) / static_cast<float>(top), factor = reciprocal(scale);
    write_half(scale, out);
    write_half(*least, out + 2);
    int codes[32];
    for (int i = 0; i < 32; ++i) {
        codes[i] = static_cast<int>(std::clamp((x[i] - *least) * factor + 0.5f, 0.0f, static_cast<float>(top)));
    }
    pack_32(codes, out + (bits == 5 ? 8 : 4), bits == 5 ? out + 4 : nullptr);
}

/// Scale: absmax / 127. Halves are rounded away from zero.
void bytes_32(const float *x, uint8_t *out) {
    const float scale = std::fabs(peak(x, 32)) / 127, factor = reciprocal(scale);
    write_half(scale, out);
    for (int i = 0; i < 32; ++i) {
        out[2 + i] = static_cast<uint8_t>(static_cast<int>(std::clamp(std::round(x[i] * factor), -128.0f, 127.0f)));
    }
}

// MARK: Super-blocks of 256 values, whose groups' scales are integers

constexpr int super = 256;

struct Affine {
    float scale, minimum;  // x ≈ scale · code − minimum, both at least 0
};

/// The scale and minimum of 32 values with codes 0 … top that minimize Σ w (x − x̂)². Large values have larger weights, as
/// their errors matter more. For each of several grids around the range, codes are rounded, then scale and minimum are the
/// least-squares solution for these codes.
CK_CLONES Affine fit_affine(const float *x, int top) {
    constexpr int count = 32;
    const float least = std::min(0.0f, *std::min_element(x, x + count)), largest = *std::max_element(x, x + count);
    if (largest <= least) return {0, -least};
    const float root = std::sqrt(sum<count>([&](int i) { return x[i] * x[i]; }) / count), limit = static_cast<float>(top);
    float w[count], q[count];
    for (int i = 0; i < count; ++i) w[i] = root + std::fabs(x[i]);
    const float total = sum<count>([&](int i) { return w[i]; }), total_x = sum<count>([&](int i) { return w[i] * x[i]; });
    Affine best{(largest - least) / limit, -least};
    float lowest = INFINITY;
    for (int grid = -10; grid <= 10; ++grid) {
        const float factor = (limit + 0.1f * static_cast<float>(grid)) / (largest - least);
        for (int i = 0; i < count; ++i) q[i] = std::clamp(whole((x[i] - least) * factor), 0.0f, limit);
        const float sum_q = sum<count>([&](int i) { return w[i] * q[i]; });
        const float sum_qq = sum<count>([&](int i) { return w[i] * q[i] * q[i]; });
        const float sum_qx = sum<count>([&](int i) { return w[i] * q[i] * x[i]; });
        const float determinant = total * sum_qq - sum_q * sum_q;
        if (determinant <= 0) continue;
        Affine own{(total * sum_qx - total_x * sum_q) / determinant, (sum_q * sum_qx - sum_qq * total_x) / determinant};
        if (own.minimum < 0) own = {sum_qx / sum_qq, 0};
        if (own.scale <= 0) continue;
        const float error = sum<count>([&](int i) {
            const float difference = own.scale * q[i] - own.minimum - x[i];
            return w[i] * difference * difference;
        });
        if (error < lowest) {
            lowest = error;
            best = own;
        }
    }
    return best;
}

/// The scale of 16 values with codes −32 … 31, by the same idea with weights x².
CK_CLONES float fit_scale(const float *x) {
    constexpr int count = 16;
    const float largest = peak(x, count);
    if (largest == 0) return 0;
    float best = largest / -32, highest = -INFINITY, q[count];
    for (int grid = -9; grid <= 9; ++grid) {
        const float factor = (-32 + 0.1f * static_cast<float>(grid)) / largest;
        for (int i = 0; i < count; ++i) q[i] = std::clamp(whole(x[i] * factor), -32.0f, 31.0f);
        const float sum_qq = sum<count>([&](int i) { return x[i] * x[i] * q[i] * q[i]; });
        const float sum_qx = sum<count>([&](int i) { return x[i] * x[i] * q[i] * x[i]; });
        // The error of the least-squares scale is Σ w x² − (Σ w q x)² / Σ w q².
        if (sum_qq > 0 && sum_qx * sum_qx > highest * sum_qq) {
            highest = sum_qx * sum_qx / sum_qq;
            best = sum_qx / sum_qq;
        }
    }
    return best;
}

/// Q4_K and Q5_K: eight groups of 32, each with a six-bit scale and minimum.
void affine_256(const float *x, int bits, uint8_t *out) {
    const int top = (1 << bits) - 1;
    Affine groups[8];
    float scales = 0, minima = 0;
    for (int g = 0; g < 8; ++g) {
        groups[g] = fit_affine(x + 32 * g, top);
        scales = std::max(scales, groups[g].scale);
        minima = std::max(minima, groups[g].minimum);
    }
    const float d = write_half(scales / 63, out), m = write_half(minima / 63, out + 2);
    uint8_t *packed = out + 4, *fifth = bits == 5 ? out + 16 : nullptr, *halves = out + (bits == 5 ? 48 : 16);
    std::memset(packed, 0, 12);
    int codes[super];
    for (int g = 0; g < 8; ++g) {
        const int scale = nearest(groups[g].scale * reciprocal(d), 0, 63);
        const int minimum = nearest(groups[g].minimum * reciprocal(m), 0, 63);
        if (g < 4) {
            packed[g] |= static_cast<uint8_t>(scale);
            packed[g + 4] |= static_cast<uint8_t>(minimum);
        } else {
            packed[g + 4] = static_cast<uint8_t>((scale & 15) | (minimum & 15) << 4);
            packed[g - 4] |= static_cast<uint8_t>(scale >> 4 << 6);
            packed[g] |= static_cast<uint8_t>(minimum >> 4 << 6);
        }
        const float factor = reciprocal(d * static_cast<float>(scale)), low = m * static_cast<float>(minimum);
        for (int i = 0; i < 32; ++i) codes[32 * g + i] = nearest((x[32 * g + i] + low) * factor, 0, top);
    }
    for (int pair = 0; pair < 4; ++pair) {
        for (int i = 0; i < 32; ++i) {
            halves[32 * pair + i] = static_cast<uint8_t>((codes[64 * pair + i] & 15) | (codes[64 * pair + 32 + i] & 15) << 4);
        }
    }
    if (!fifth) return;
    std::memset(fifth, 0, 32);
    for (int i = 0; i < super; ++i) fifth[i % 32] |= static_cast<uint8_t>((codes[i] >> 4) << (i / 32));
}

/// Q6_K: sixteen groups of 16 with a signed byte as scale.
void symmetric_256(const float *x, uint8_t *out) {
    float scales[16];
    for (int g = 0; g < 16; ++g) scales[g] = fit_scale(x + 16 * g);
    const float d = write_half(peak(scales, 16) / -128, out + 208), factor = reciprocal(d);
    int codes[super];
    for (int g = 0; g < 16; ++g) {
        const int scale = nearest(scales[g] * factor, -128, 127);
        out[192 + g] = static_cast<uint8_t>(scale);
        const float own = reciprocal(d * static_cast<float>(scale));
        for (int i = 0; i < 16; ++i) codes[16 * g + i] = nearest(x[16 * g + i] * own, -32, 31) + 32;
    }
    for (int part = 0; part < 2; ++part) {
        const int *c = codes + 128 * part;
        for (int i = 0; i < 32; ++i) {
            out[64 * part + i] = static_cast<uint8_t>((c[i] & 15) | (c[i + 64] & 15) << 4);
            out[64 * part + 32 + i] = static_cast<uint8_t>((c[i + 32] & 15) | (c[i + 96] & 15) << 4);
            out[128 + 32 * part + i] =
                static_cast<uint8_t>(c[i] >> 4 | (c[i + 32] >> 4) << 2 | (c[i + 64] >> 4) << 4 | (c[i + 96] >> 4) << 6);
        }
    }
}

void encode_block(GGUFBlocks type, const float *x, uint8_t *out) {
    switch (type) {
        case GGUFBlocks::q4_0: return symmetric_32(x, 4, out);
        case GGUFBlocks::q4_1: return range_32(x, 4, out);
        case GGUFBlocks::q5_0: return symmetric_32(x, 5, out);
        case GGUFBlocks::q5_1: return range_32(x, 5, out);
        case GGUFBlocks::q8_0: return bytes_32(x, out);
        case GGUFBlocks::q4_K: return affine_256(x, 4, out);
        case GGUFBlocks::q5_K: return affine_256(x, 5, out);
        case GGUFBlocks::q6_K: return symmetric_256(x, out);
    }
}

}  // namespace

namespace ckernels {

int64_t gguf_block_values(GGUFBlocks type) { return type >= GGUFBlocks::q4_K ? super : 32; }

int64_t gguf_block_bytes(GGUFBlocks type) {
    switch (type) {
        case GGUFBlocks::q4_0: return 18;
        case GGUFBlocks::q4_1: return 20;
        case GGUFBlocks::q5_0: return 22;
        case GGUFBlocks::q5_1: return 24;
        case GGUFBlocks::q8_0: return 34;
        case GGUFBlocks::q4_K: return 144;
        case GGUFBlocks::q5_K: return 176;
        case GGUFBlocks::q6_K: return 210;
    }
    return 0;
}

void encode_gguf(GGUFBlocks type, const float *values, int64_t count, uint8_t *out) {
    const int64_t size = gguf_block_values(type), bytes = gguf_block_bytes(type);
    if (bytes == 0) return;
    parallel_for(0, count / size, 4096 / size, [&](int64_t from, int64_t to) {
        float x[super];
        for (int64_t block = from; block < to; ++block) {
            for (int64_t i = 0; i < size; ++i) {
                const float value = values[block * size + i];
                x[i] = std::isfinite(value) ? value : 0;
            }
            encode_block(type, x, out + block * bytes);
        }
    });
}

}  // namespace ckernels
