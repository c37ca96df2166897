// AVX2: products of bytes are added in pairs to 16 bits, whose sums over 32 inputs of at most 4 bits don't overflow.
#include "GroupIntegers.hpp"

#if defined(__x86_64__)

#include <cstring>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {
namespace {

constexpr int digits = GroupIntegers::digits;

/// Eight floats of a matrix [groups, outputs].
CK_AVX2 inline __m256 load_floats(const FloatMatrix &matrix, int64_t offset) {
    if (matrix.type == FloatMatrix::Type::fp32) return _mm256_loadu_ps(static_cast<const float *>(matrix.data) + offset);
    const Half *halves = static_cast<const Half *>(matrix.data) + offset;
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(halves)));
}

/// Eight zero points from output `first`, a multiple of 8.
template <int BITS> CK_AVX2 inline __m256 load_zeros(const GroupWeights &w, int64_t group, int64_t first) {
    if (w.packed_zeros == nullptr) return load_floats(w.zeros, group * w.outputs + first);
    const uint32_t word = w.packed_zeros[group * w.zero_words() + first * BITS / 32] >> (first * BITS % 32);
    const __m256i places = _mm256_setr_epi32(0, BITS, 2 * BITS, 3 * BITS, 4 * BITS, 5 * BITS, 6 * BITS, 7 * BITS);
    __m256i z = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int32_t>(word)), places);
    z = _mm256_add_epi32(z, _mm256_set1_epi32(w.zero_offset));
    return _mm256_cvtepi32_ps(_mm256_and_si256(z, _mm256_set1_epi32((1 << BITS) - 1)));
}

/// Adds a chunk's products of rows from `row` to `VECTORS` · 8 outputs of y from `first`.
template <int BITS, int ROWS, int VECTORS>
CK_AVX2 inline void add_chunk(const GroupWeights &w, const GroupIntegers &x, const GroupIntegers::Chunk &chunk, int64_t index,
                              int64_t row, float *y, int64_t first) {
    constexpr int phases = 8 / BITS;
    const __m256i low = _mm256_set1_epi8((1 << BITS) - 1), ones = _mm256_set1_epi16(1);
    __m256i sums[ROWS][VECTORS][digits];
    for (auto &list : sums) {
        for (auto &vector : list) {
            for (auto &sum : vector) sum = _mm256_setzero_si256();
        }
    }
    const uint32_t *words = chunk.packed + first;
    const int8_t *bytes = x.bytes.data() + row * digits * w.inputs + chunk.first;
    const int64_t ahead = chunk.words * w.outputs;
    for (int64_t word = 0; word < chunk.words; ++word, words += w.outputs, bytes += 4 * phases) {
        __m256i packed[VECTORS];
        for (int v = 0; v < VECTORS; ++v) packed[v] = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(words + 8 * v));
        _mm_prefetch(reinterpret_cast<const char *>(words + ahead), _MM_HINT_T1);
        for (int phase = 0; phase < phases; ++phase) {
            __m256i values[VECTORS];
            for (int v = 0; v < VECTORS; ++v) values[v] = _mm256_and_si256(_mm256_srli_epi32(packed[v], BITS * phase), low);
            for (int r = 0; r < ROWS; ++r) {
                for (int digit = 0; digit < digits; ++digit) {
                    int32_t four;
                    std::memcpy(&four, bytes + (r * digits + digit) * w.inputs + 4 * phase, sizeof four);
                    const __m256i factors = _mm256_set1_epi32(four);
                    for (int v = 0; v < VECTORS; ++v) {
                        __m256i &sum = sums[r][v][digit];
                        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(values[v], factors));
                    }
                }
            }
        }
    }
    for (int v = 0; v < VECTORS; ++v) {
        const int64_t at = first + 8 * v;
        const __m256 scales = load_floats(w.scales, chunk.group * w.outputs + at), zeros = load_zeros<BITS>(w, chunk.group, at);
        for (int r = 0; r < ROWS; ++r) {
            const auto place = static_cast<size_t>((row + r) * x.chunks + index);
            const auto whole = [&](int digit) CK_AVX2 { return _mm256_cvtepi32_ps(_mm256_madd_epi16(sums[r][v][digit], ones)); };
            __m256 sum = _mm256_fmadd_ps(whole(1), _mm256_set1_ps(256.0f), whole(0));
            sum = _mm256_fmadd_ps(whole(2), _mm256_set1_ps(65536.0f), sum);
            sum = _mm256_mul_ps(sum, _mm256_set1_ps(x.factors[place]));
            sum = _mm256_fnmadd_ps(zeros, _mm256_set1_ps(x.totals[place]), sum);
            float *to = y + (row + r) * w.outputs + at;
            _mm256_storeu_ps(to, _mm256_fmadd_ps(scales, sum, _mm256_loadu_ps(to)));
        }
    }
}

template <int BITS, int ROWS>
CK_AVX2 void add_rows(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, float *y, int64_t first,
                      int64_t end) {
    // Two vectors of outputs at a time share each load of x, where the sums fit the registers.
    constexpr int vectors = ROWS <= 2 ? 2 : 1;
    const GroupIntegers::Chunk chunk = x.chunk_of(w, index);
    int64_t at = first;
    for (; at + 8 * vectors <= end; at += 8 * vectors) add_chunk<BITS, ROWS, vectors>(w, x, chunk, index, row, y, at);
    for (; at < end; at += 8) add_chunk<BITS, ROWS, 1>(w, x, chunk, index, row, y, at);
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

void add_integer_rows_avx2(const GroupWeights &w, const GroupIntegers &x, int64_t index, int64_t row, int64_t count, float *y,
                           int64_t first, int64_t end) {
    if (w.bits == 2) return add_some_rows<2>(w, x, index, row, count, y, first, end);
    add_some_rows<4>(w, x, index, row, count, y, first, end);
}

}  // namespace ckernels

#endif
