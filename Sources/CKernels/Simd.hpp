// Functions for several instruction sets, and the helpers that their loops share.
//
// The build targets any x86-64 or arm64. A function marked CK_CLONES is compiled for several instruction sets, and the
// loader picks one for the processor. A function marked CK_AVX2 or CK_AVX512 may be called only if `has_avx2` or
// `has_avx512` returns true. Every loop has a portable version with independent sums per lane, which compilers vectorize
// without -ffast-math: on arm64, whose baseline includes NEON, it is the only one.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__x86_64__) && defined(__linux__)
#define CK_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CK_CLONES
#endif

/// For functions that are inlined into such functions.
#define CK_INLINED inline __attribute__((always_inline))

/// Before a loop whose iterations don't depend on each other: compilers needn't check whether its arrays overlap.
#define CK_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")

namespace ckernels {

/// Σ of a row's partial sums, in order.
template <size_t Lanes> inline float sum_of(const float (&lanes)[Lanes]) {
    float sum = 0;
    for (float lane : lanes) sum += lane;
    return sum;
}

/// The largest of a row's partial maxima.
template <size_t Lanes> inline float largest_of(const float (&lanes)[Lanes]) {
    float largest = lanes[0];
    for (float lane : lanes) largest = lane > largest ? lane : largest;
    return largest;
}

/// Σ a b, with eight partial sums, which compilers keep in registers.
inline float dot(const float *a, const float *b, int64_t count) {
    float sums[8] = {};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int k = 0; k < 8; ++k) sums[k] += a[i + k] * b[i + k];
    }
    float sum = 0;
    for (; i < count; ++i) sum += a[i] * b[i];
    for (float part : sums) sum += part;
    return sum;
}

}  // namespace ckernels

#if defined(__x86_64__)
#define CK_AVX2 __attribute__((target("avx2,fma,f16c")))
#define CK_AVX512 __attribute__((target("avx512f,avx2,fma,f16c")))

namespace ckernels {

inline bool has_avx2() {
    static const bool has = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    return has;
}

/// Whether 512-bit vectors are disabled on this thread (`use_wide_vectors`).
inline thread_local bool avoids_avx512 = false;

inline bool has_avx512() {
    static const bool has = has_avx2() && __builtin_cpu_supports("avx512f");
    return has && !avoids_avx512;
}

/// Σ of the eight lanes.
CK_AVX2 inline float sum_of(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

}  // namespace ckernels
#endif
