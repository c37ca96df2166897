// The build targets any x86-64. A function marked CT_CLONES is compiled for several instruction sets, and the loader
// picks one for the processor. A function marked CT_AVX2 or CT_AVX512 may be called only if `has_avx2` or
// `has_avx512` returns true.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#define CT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CT_CLONES
#endif

/// For functions that are inlined into such functions.
#define CT_INLINED inline __attribute__((always_inline))

#if defined(__x86_64__)
#define CT_AVX2 __attribute__((target("avx2,fma,f16c")))
#define CT_AVX512 __attribute__((target("avx512f,avx2,fma,f16c")))

namespace ctorch {

inline bool has_avx2() {
    static const bool has =
        __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    return has;
}

/// Whether 512-bit vectors are disabled on this thread (`ct_use_wide_vectors`).
inline thread_local bool avoids_avx512 = false;

inline bool has_avx512() {
    static const bool has = has_avx2() && __builtin_cpu_supports("avx512f");
    return has && !avoids_avx512;
}

}  // namespace ctorch
#endif
