// 16-bit floats, as bits. (libtorch's types have constructors, which an unoptimized build doesn't emit for loops that
// are compiled for several processors.)
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace ckernels {

/// The upper 16 bits of an fp32 value.
struct BFloat {
    uint16_t bits;

    inline __attribute__((always_inline)) operator float() const {
        const uint32_t all = static_cast<uint32_t>(bits) << 16;
        float x;
        std::memcpy(&x, &all, sizeof x);
        return x;
    }
};

/// IEEE fp16.
struct Half {
    uint16_t bits;

    /// Exact, also for subnormal values.
    inline __attribute__((always_inline)) operator float() const {
        const uint32_t rest = bits & 0x7FFF, sign = static_cast<uint32_t>(bits & 0x8000) << 16;
        uint32_t all = rest << 13;
        float magnitude;
        std::memcpy(&magnitude, &all, sizeof magnitude);
        // From a bias of 15 to one of 127.
        magnitude *= 0x1p112f;
        std::memcpy(&all, &magnitude, sizeof all);
        // ∞ and NaN keep an exponent of ones.
        all = (rest >= 0x7C00 ? 0x7F800000 | rest << 13 : all) | sign;
        float x;
        std::memcpy(&x, &all, sizeof x);
        return x;
    }
};

/// x rounded to the nearest bf16, ties to even, if it isn't NaN.
inline __attribute__((always_inline)) uint16_t bfloat_bits(float x) {
    uint32_t all;
    std::memcpy(&all, &x, sizeof all);
    return static_cast<uint16_t>((all + 0x7FFF + ((all >> 16) & 1)) >> 16);
}

/// x converted to another type.
template <typename Number> inline __attribute__((always_inline)) Number rounded(float x) {
    if constexpr (std::is_same_v<Number, float>) {
        return x;
    } else {
        const uint16_t nearest = bfloat_bits(x);
        return {static_cast<uint16_t>(x == x ? nearest : 0x7FC0)};
    }
}

/// x, within ±65504, rounded to the nearest fp16, ties to even.
float rounded_to_half(float x);

void upcast(const BFloat *x, float *y, int64_t count);
void upcast(const Half *x, float *y, int64_t count);
void downcast(const float *x, BFloat *y, int64_t count);

}  // namespace ckernels
