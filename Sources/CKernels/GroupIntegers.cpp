#include "GroupIntegers.hpp"

#if defined(__x86_64__)

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <limits>

#include "GroupValues.hpp"

namespace ckernels {
namespace {

constexpr int digits = GroupIntegers::digits;
/// The largest integer whose three signed bytes don't overflow, less a margin for rounding.
constexpr float largest_integer = 8355000.0f;
/// The grid of smaller chunks is that of this size, so that its step is a normal number.
constexpr float smallest_peak = 1e-30f;

bool has_vnni() {
    static const bool has = has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                            __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
    return has && !avoids_avx512;
}

/// The order of 16 inputs among the bytes of words: a word's values at bits 0, 8, 16 and 24 come first, then those above them.
__m128i byte_order(int bits) {
    switch (bits) {
        case 2: return _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        case 4: return _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
        default: return _mm_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    }
}

/// The largest |x| of a multiple of 16 values; infinite if one of them is infinite or NaN.
CK_AVX2 float peak_of(const float *x, int64_t count) {
    const __m256 sign = _mm256_set1_ps(-0.0f), most = _mm256_set1_ps(FLT_MAX);
    __m256 peak = _mm256_setzero_ps(), isnt_finite = _mm256_setzero_ps();
    for (int64_t i = 0; i < count; i += 8) {
        const __m256 size = _mm256_andnot_ps(sign, _mm256_loadu_ps(x + i));
        isnt_finite = _mm256_or_ps(isnt_finite, _mm256_cmp_ps(size, most, _CMP_NLE_UQ));
        peak = _mm256_max_ps(peak, size);
    }
    if (_mm256_movemask_ps(isnt_finite) != 0) return std::numeric_limits<float>::infinity();
    alignas(32) float lanes[8];
    _mm256_store_ps(lanes, peak);
    return *std::max_element(lanes, lanes + 8);
}

/// The lowest bytes of 16 integers, in order.
CK_AVX2 inline __m128i low_bytes(__m256i a, __m256i b) {
    const __m256i mask = _mm256_set1_epi32(255);
    const __m256i pairs = _mm256_packus_epi32(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
    const __m256i ordered = _mm256_permute4x64_epi64(pairs, 0xD8);
    return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

/// Splits x · scale, rounded, into signed bytes, the planes of which are `plane` apart; returns the sum of the integers. A multiple
/// of 16 values, at most 128, so that the sum's eight parts fit 32 bits.
CK_AVX2 int64_t split(const float *x, int64_t count, float scale, __m128i order, int8_t *out, int64_t plane) {
    const __m256 factor = _mm256_set1_ps(scale);
    const __m256i half = _mm256_set1_epi32(128);
    __m256i sums = _mm256_setzero_si256();
    for (int64_t i = 0; i < count; i += 16) {
        __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i), factor));
        __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + i + 8), factor));
        sums = _mm256_add_epi32(sums, _mm256_add_epi32(a, b));
        for (int digit = 0; digit < digits; ++digit) {
            _mm_storeu_si128(reinterpret_cast<__m128i *>(out + digit * plane + i), _mm_shuffle_epi8(low_bytes(a, b), order));
            // What remains is exact, since bytes are signed.
            a = _mm256_srai_epi32(_mm256_add_epi32(a, half), 8);
            b = _mm256_srai_epi32(_mm256_add_epi32(b, half), 8);
        }
    }
    alignas(32) int32_t lanes[8];
    _mm256_store_si256(reinterpret_cast<__m256i *>(lanes), sums);
    int64_t sum = 0;
    for (int32_t lane : lanes) sum += lane;
    return sum;
}

}  // namespace

GroupIntegers::Kernel GroupIntegers::kernel_for(const GroupWeights &w, int64_t rows) {
    using Type = FloatMatrix::Type;
    const bool are_narrow = w.scales.type != Type::fp64 && (w.packed_zeros != nullptr || w.zeros.type != Type::fp64);
    if (w.bits == 3 || w.group_size % 16 != 0 || w.inputs % 16 != 0 || !are_narrow) return Kernel::none;
    if (has_vnni()) return Kernel::vnni;
    // Products of bytes of 8 bits don't fit 16 bits. More rows are as fast in fp32.
    return has_avx2() && w.bits < 8 && w.outputs % 8 == 0 && rows <= 4 ? Kernel::avx2 : Kernel::none;
}

GroupIntegers::Chunk GroupIntegers::chunk_of(const GroupWeights &w, int64_t index) const {
    const int64_t at = index * chunk, per_word = w.values_of_a_block();
    return {w.packed + at / per_word * w.outputs, std::min(chunk, w.inputs - at) / per_word, at / w.group_size, at};
}

void GroupIntegers::read(const GroupWeights &w, Kernel chosen, const float *x, int64_t rows) {
    kernel = chosen;
    const int64_t most = kernel == Kernel::avx2 ? 32 : 128;
    chunk = w.group_size;
    for (int64_t size = most; chunk > most; size /= 2) {
        if (w.group_size % size == 0) chunk = size;
    }
    chunk = std::min(chunk, w.inputs);
    chunks = (w.inputs + chunk - 1) / chunk;
    bytes.resize(static_cast<size_t>(rows * digits * w.inputs));
    factors.resize(static_cast<size_t>(rows * chunks));
    totals.resize(static_cast<size_t>(rows * chunks));
    const __m128i order = byte_order(w.bits);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t index = 0; index < chunks; ++index) {
            const int64_t first = index * chunk, count = std::min(chunk, w.inputs - first);
            const float *values = x + r * w.inputs + first;
            const float peak = peak_of(values, count);
            const float size = std::max(peak, smallest_peak);
            int8_t *to = bytes.data() + r * digits * w.inputs + first;
            const int64_t sum = split(values, count, largest_integer / size, order, to, w.inputs);
            const auto place = static_cast<size_t>(r * chunks + index);
            factors[place] = peak > FLT_MAX ? std::numeric_limits<float>::quiet_NaN() : size / largest_integer;
            totals[place] = static_cast<float>(sum) * factors[place];
        }
    }
}

void GroupIntegers::multiply(const GroupWeights &w, int64_t rows, float *y, int64_t first, int64_t end) const {
    for (int64_t r = 0; r < rows; ++r) std::fill(y + r * w.outputs + first, y + r * w.outputs + end, 0.0f);
    const int64_t parts = (rows + integer_rows_at_once - 1) / integer_rows_at_once;
    const auto add = [&](int64_t index, int64_t part, int64_t from, int64_t to) {
        const int64_t row = part * rows / parts, count = (part + 1) * rows / parts - row;
        if (kernel == Kernel::vnni) add_integer_rows_vnni(w, *this, index, row, count, y, from, to);
        else add_integer_rows_avx2(w, *this, index, row, count, y, from, to);
    };
    if (parts <= 3) {
        // In the order of memory; a chunk's words stay in the L1 cache for the other rows.
        for (int64_t index = 0; index < chunks; ++index) {
            for (int64_t part = 0; part < parts; ++part) add(index, part, first, end);
        }
        return;
    }
    // Strips of W stay in the L2 cache for the other rows, and the results of a few rows in the L1 cache.
    constexpr int64_t strip = 256;
    for (int64_t start = first; start < end; start += strip) {
        for (int64_t part = 0; part < parts; ++part) {
            for (int64_t index = 0; index < chunks; ++index) add(index, part, start, std::min(start + strip, end));
        }
    }
}

}  // namespace ckernels

#endif
