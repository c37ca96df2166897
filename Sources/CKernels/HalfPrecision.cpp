#include "ckernels/HalfPrecision.hpp"

#include <algorithm>
#include <cmath>

#include "Simd.hpp"

namespace {

using ckernels::BFloat;
using ckernels::Half;
using ckernels::rounded;

CK_CLONES void upcast_bfloats(const BFloat *x, float *y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] = x[i];
}

CK_CLONES void downcast_to_bfloats(const float *x, BFloat *y, int64_t count) {
    for (int64_t i = 0; i < count; ++i) y[i] = rounded<BFloat>(x[i]);
}

#if defined(__x86_64__)

/// Multiples of eight values; returns how many.
CK_AVX2 int64_t upcast_by_eight(const Half *x, float *y, int64_t count) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i *>(x + i));
        _mm256_storeu_ps(y + i, _mm256_cvtph_ps(eight));
    }
    return i;
}

#endif

}  // namespace

namespace ckernels {

float rounded_to_half(float x) {
    int exponent = 0;
    std::frexp(x, &exponent);
    // fp16 has ten fraction bits, and none below 2⁻²⁴; the sum with a power of two that is thirteen binary orders larger
    // has no others.
    const float large = std::copysign(std::ldexp(1.0f, std::max(exponent - 1, -14) + 13), x);
    return x + large - large;
}

void upcast(const BFloat *x, float *y, int64_t count) { upcast_bfloats(x, y, count); }

void upcast(const Half *x, float *y, int64_t count) {
    int64_t i = 0;
#if defined(__x86_64__)
    if (has_avx2()) i = upcast_by_eight(x, y, count);
#endif
    for (; i < count; ++i) y[i] = x[i];
}

void downcast(const float *x, BFloat *y, int64_t count) { downcast_to_bfloats(x, y, count); }

}  // namespace ckernels
