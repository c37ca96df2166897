// AVX-512 with dot products of bytes.
#include "GroupIntegers.hpp"

#if defined(__x86_64__)

#include <algorithm>
#include <cstring>

#include "ckernels/HalfPrecision.hpp"

#define CK_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))

namespace ckernels {
namespace {

constexpr int digits = GroupIntegers::digits;

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
CK_VNNI inline void add_chunk(const GroupWeights &w, const GroupIntegers &x, const GroupIntegers::Chunk &chunk, int64_t index,
                              int64_t row, float *y, int64_t first, __mmask16 mask) {
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
    const GroupIntegers::Chunk chunk = x.chunk_of(w, index);
    int64_t at = first;
    for (; at + 32 <= end; at += 32) add_chunk<BITS, ROWS, 2>(w, x, chunk, index, row, y, at, 0xFFFF);
    for (; at < end; at += 16) {
        const int64_t count = std::min<int64_t>(16, end - at);
        add_chunk<BITS, ROWS, 1>(w, x, chunk, index, row, y, at, static_cast<__mmask16>((1u << count) - 1));
    }
}

template <int BITS>
void add_some_rows(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, int64_t count, float *y,
                   int64_t first, int64_t end) {
    switch (count) {
        case 1: return add_rows<BITS, 1>(w, x, index, row, y, first, end);
        case 2: return add_rows<BITS, 2>(w, x, index, row, y, first, end);
        default: return add_rows<BITS, 3>(w, x, index, row, y, first, end);
    }
}

}  // namespace

void add_integer_rows_vnni(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, int64_t count, float *y,
                           int64_t first, int64_t end) {
    switch (w.bits) {
        case 2: return add_some_rows<2>(w, x, index, row, count, y, first, end);
        case 4: return add_some_rows<4>(w, x, index, row, count, y, first, end);
        default: return add_some_rows<8>(w, x, index, row, count, y, first, end);
    }
}

}  // namespace ckernels

#endif
