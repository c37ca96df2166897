#include "GroupIntegers.hpp"

#if defined(__x86_64__)

#include <algorithm>
#include <cfloat>
#include <cstring>
#include <limits>

#include "GroupValues.hpp"

#define CK_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))

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

// MARK: x as integers

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

/// A chunk of inputs of a matrix.
struct Chunk {
    const uint32_t *packed;
    int64_t words;
    /// Rows of scales and zero points.
    int64_t group;
    /// Offset of its first input.
    int64_t first;
};

Chunk chunk_of(const GroupWeights &w, const GroupIntegers &x, int64_t index) {
    const int64_t first = index * x.chunk, per_word = w.values_of_a_block();
    return {w.packed + first / per_word * w.outputs, std::min(x.chunk, w.inputs - first) / per_word, first / w.group_size, first};
}

// MARK: AVX-512 with dot products of bytes

/// Up to 16 floats of a matrix [groups, outputs].
CK_VNNI inline __m512 load_floats(const FloatMatrix &matrix, int64_t offset, __mmask16 mask) {
    if (matrix.type == FloatMatrix::Type::fp32) {
        return _mm512_maskz_loadu_ps(mask, static_cast<const float *>(matrix.data) + offset);
    }
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, static_cast<const Half *>(matrix.data) + offset));
}

/// Up to 16 zero points from output `first`, a multiple of 16.
template <int BITS> CK_VNNI inline __m512 load_zeros(const GroupWeights &w, int64_t group, int64_t first, __mmask16 mask) {
    if (w.packed_zeros == nullptr) return load_floats(w.zeros, group * w.outputs + first, mask);
    const uint32_t *row = w.packed_zeros + group * w.zero_words() + first * BITS / 32;
    // A matrix's outputs fill whole words.
    const int64_t words = (__builtin_popcount(mask) * BITS + 31) / 32;
    const __m128i packed = _mm_maskz_loadu_epi32(static_cast<__mmask8>((1u << words) - 1), row);
    __m512i z;
    if constexpr (BITS == 8) {
        z = _mm512_cvtepu8_epi32(packed);
    } else {
        const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        const __m512i bits = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(BITS));
        const __m512i words_of_lanes = _mm512_permutexvar_epi32(_mm512_srli_epi32(bits, 5), _mm512_castsi128_si512(packed));
        z = _mm512_srlv_epi32(words_of_lanes, _mm512_and_si512(bits, _mm512_set1_epi32(31)));
    }
    z = _mm512_add_epi32(z, _mm512_set1_epi32(w.zero_offset));
    return _mm512_cvtepi32_ps(_mm512_and_si512(z, _mm512_set1_epi32((1 << BITS) - 1)));
}

/// Adds a chunk's products of rows from `row` to `VECTORS` · 16 outputs of y from `first`; `mask` is the outputs of each vector.
template <int BITS, int ROWS, int VECTORS>
CK_VNNI inline void add_chunk(const GroupWeights &w, const GroupIntegers &x, const Chunk &chunk, int64_t index, int64_t row,
                              float *y, int64_t first, __mmask16 mask) {
    constexpr int phases = 8 / BITS;
    const __m512i low = _mm512_set1_epi8(static_cast<char>((1 << BITS) - 1));
    __m512i sums[ROWS][VECTORS][digits];
    for (auto &row : sums) {
        for (auto &vector : row) {
            for (auto &sum : vector) sum = _mm512_setzero_si512();
        }
    }
    const uint32_t *words = chunk.packed + first;
    const int8_t *bytes = x.bytes.data() + row * digits * w.inputs + chunk.first;
    // The next chunk's rows of words are elsewhere, so that the processor doesn't see them coming.
    const int64_t ahead = chunk.words * w.outputs;
    for (int64_t word = 0; word < chunk.words; ++word, words += w.outputs, bytes += 4 * phases) {
        __m512i packed[VECTORS];
        for (int v = 0; v < VECTORS; ++v) {
            packed[v] = _mm512_maskz_loadu_epi32(mask, words + 16 * v);
            _mm_prefetch(reinterpret_cast<const char *>(words + ahead + 16 * v), _MM_HINT_T1);
        }
        for (int phase = 0; phase < phases; ++phase) {
            __m512i values[VECTORS];
            for (int v = 0; v < VECTORS; ++v) {
                values[v] = BITS == 8 ? packed[v] : _mm512_and_si512(_mm512_srli_epi32(packed[v], BITS * phase), low);
            }
            for (int r = 0; r < ROWS; ++r) {
                for (int digit = 0; digit < digits; ++digit) {
                    int32_t four;
                    std::memcpy(&four, bytes + (r * digits + digit) * w.inputs + 4 * phase, sizeof four);
                    const __m512i factors = _mm512_set1_epi32(four);
                    for (int v = 0; v < VECTORS; ++v) {
                        sums[r][v][digit] = _mm512_dpbusd_epi32(sums[r][v][digit], values[v], factors);
                    }
                }
            }
        }
    }
    for (int v = 0; v < VECTORS; ++v) {
        const int64_t at = first + 16 * v;
        const __m512 scales = load_floats(w.scales, chunk.group * w.outputs + at, mask);
        const __m512 zeros = load_zeros<BITS>(w, chunk.group, at, mask);
        for (int r = 0; r < ROWS; ++r) {
            const __m512 factor = _mm512_set1_ps(x.factors[static_cast<size_t>((row + r) * x.chunks + index)]);
            const __m512 total = _mm512_set1_ps(x.totals[static_cast<size_t>((row + r) * x.chunks + index)]);
            __m512 sum = _mm512_cvtepi32_ps(sums[r][v][0]);
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v][1]), _mm512_set1_ps(256.0f), sum);
            sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[r][v][2]), _mm512_set1_ps(65536.0f), sum);
            sum = _mm512_fnmadd_ps(zeros, total, _mm512_mul_ps(sum, factor));
            float *to = y + (row + r) * w.outputs + at;
            _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(scales, sum, _mm512_maskz_loadu_ps(mask, to)));
        }
    }
}

/// Adds a chunk's products of `ROWS` rows from `row`. Two vectors of outputs at a time hide the latency of the sums.
template <int BITS, int ROWS>
CK_VNNI void add_rows(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, float *y, int64_t first,
                      int64_t end) {
    const Chunk chunk = chunk_of(w, x, index);
    int64_t at = first;
    for (; at + 32 <= end; at += 32) add_chunk<BITS, ROWS, 2>(w, x, chunk, index, row, y, at, 0xFFFF);
    for (; at < end; at += 16) {
        const int64_t count = std::min<int64_t>(16, end - at);
        add_chunk<BITS, ROWS, 1>(w, x, chunk, index, row, y, at, static_cast<__mmask16>((1u << count) - 1));
    }
}

/// Adds a chunk's products of rows row ..< row + count.
template <int BITS>
void add_some_rows(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, int64_t count, float *y,
                   int64_t first, int64_t end) {
    switch (count) {
        case 1: return add_rows<BITS, 1>(w, x, index, row, y, first, end);
        case 2: return add_rows<BITS, 2>(w, x, index, row, y, first, end);
        default: return add_rows<BITS, 3>(w, x, index, row, y, first, end);
    }
}

/// Rows whose sums fit the registers.
constexpr int64_t rows_at_once = 3;

template <int BITS>
void multiply_rows(const GroupWeights &w, const GroupIntegers &x, int64_t rows, float *y, int64_t first, int64_t end) {
    for (int64_t r = 0; r < rows; ++r) std::fill(y + r * w.outputs + first, y + r * w.outputs + end, 0.0f);
    const int64_t parts = (rows + rows_at_once - 1) / rows_at_once;
    if (parts <= 3) {
        // In the order of memory; a chunk's words stay in the L1 cache for the other rows.
        for (int64_t index = 0; index < x.chunks; ++index) {
            for (int64_t part = 0; part < parts; ++part) {
                const int64_t row = part * rows / parts, count = (part + 1) * rows / parts - row;
                add_some_rows<BITS>(w, x, index, row, count, y, first, end);
            }
        }
        return;
    }
    // Strips of W stay in the L2 cache for the other rows, and the results of a few rows in the L1 cache.
    constexpr int64_t strip = 256;
    for (int64_t start = first; start < end; start += strip) {
        const int64_t stop = std::min(start + strip, end);
        for (int64_t part = 0; part < parts; ++part) {
            const int64_t row = part * rows / parts, count = (part + 1) * rows / parts - row;
            for (int64_t index = 0; index < x.chunks; ++index) add_some_rows<BITS>(w, x, index, row, count, y, start, stop);
        }
    }
}

}  // namespace

bool GroupIntegers::apply_to(const GroupWeights &w) {
    using Type = FloatMatrix::Type;
    const bool are_narrow = w.scales.type != Type::fp64 && (w.packed_zeros != nullptr || w.zeros.type != Type::fp64);
    return has_vnni() && w.bits != 3 && w.group_size % 16 == 0 && w.inputs % 16 == 0 && are_narrow;
}

void GroupIntegers::read(const GroupWeights &w, const float *x, int64_t rows) {
    chunk = w.group_size;
    for (int64_t size = 128; chunk > 128; size /= 2) {
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
    switch (w.bits) {
        case 2: return multiply_rows<2>(w, *this, rows, y, first, end);
        case 4: return multiply_rows<4>(w, *this, rows, y, first, end);
        default: return multiply_rows<8>(w, *this, rows, y, first, end);
    }
}

}  // namespace ckernels

#endif
