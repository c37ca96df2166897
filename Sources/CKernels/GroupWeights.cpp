// Loops over packed integers. All run along the outputs, which are contiguous, so that the compiler vectorizes them.
#include "ckernels/GroupWeights.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "Simd.hpp"
#include "ckernels/HalfPrecision.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using ckernels::FloatMatrix;
using ckernels::GroupWeights;
using ckernels::Half;

/// Values per block and words per block: 3-bit values straddle words.
template <int BITS> struct Block {
    static constexpr int words = BITS == 3 ? 3 : 1;
    static constexpr int values = words * 32 / BITS;
};

/// Value k of a block whose word j is `words[j * stride]`.
template <int BITS, int K> CK_INLINED int32_t value(const uint32_t *words, int64_t stride) {
    constexpr int word = K * BITS / 32, shift = K * BITS % 32;
    uint32_t bits = words[word * stride] >> shift;
    if constexpr (shift + BITS > 32) bits |= words[(word + 1) * stride] << (32 - shift);
    return static_cast<int32_t>(bits & ((1u << BITS) - 1));
}

/// Row `row` of a matrix [groups, outputs], from column `start`.
template <typename T>
void read_row(const FloatMatrix &matrix, int64_t outputs, int64_t row, int64_t start, int64_t width, T *to) {
    const int64_t offset = row * outputs + start;
    switch (matrix.type) {
        case FloatMatrix::Type::fp16: {
            const auto *from = static_cast<const Half *>(matrix.data) + offset;
            if constexpr (std::is_same_v<T, float>) {
                ckernels::upcast(from, to, width);
            } else {
                for (int64_t i = 0; i < width; ++i) to[i] = from[i];
            }
            break;
        }
        case FloatMatrix::Type::fp32: std::copy_n(static_cast<const float *>(matrix.data) + offset, width, to); break;
        case FloatMatrix::Type::fp64: std::copy_n(static_cast<const double *>(matrix.data) + offset, width, to);
    }
}

/// Row `group` of the zero points, packed or not.
template <typename T> void read_zeros(const GroupWeights &w, int64_t group, int64_t start, int64_t width, T *to) {
    if (w.packed_zeros == nullptr) return read_row(w.zeros, w.outputs, group, start, width, to);
    const uint32_t *row = w.packed_zeros + group * w.zero_words();
    const uint32_t mask = (1u << w.bits) - 1;
    for (int64_t i = 0; i < width; ++i) {
        const int64_t bit = (start + i) * w.bits, word = bit / 32, shift = bit % 32;
        uint32_t value = row[word] >> shift;
        if (shift + w.bits > 32) value |= row[word + 1] << (32 - shift);
        // GPTQ's v1 format stores z − 1, which is all ones for 0.
        to[i] = static_cast<T>((value + static_cast<uint32_t>(w.zero_offset)) & mask);
    }
}

// MARK: Dequantizing a tile

template <int BITS, int K, typename T>
CK_INLINED void dequantize_value(const uint32_t *words, int64_t stride, const T *scales, const T *zeros, T *to, int64_t width) {
    for (int64_t o = 0; o < width; ++o) {
        to[o] = scales[o] * (static_cast<T>(value<BITS, K>(words + o, stride)) - zeros[o]);
    }
}

/// `rows[k]` is the group of value k of the block.
template <int BITS, typename T, int... K>
CK_INLINED void dequantize_block(std::integer_sequence<int, K...>, const uint32_t *words, int64_t stride, const T *scales,
                                 const T *zeros, const int32_t *rows, T *to, int64_t width) {
    (dequantize_value<BITS, K>(words, stride, scales + rows[K] * width, zeros + rows[K] * width, to + K * width, width), ...);
}

#define DEQUANTIZE(BITS, T, NAME)                                                                                             \
    CK_CLONES void NAME(const uint32_t *words, int64_t stride, const T *scales, const T *zeros, const int32_t *rows, T *to,   \
                        int64_t width) {                                                                                      \
        dequantize_block<BITS, T>(std::make_integer_sequence<int, Block<BITS>::values>(), words, stride, scales, zeros, rows, \
                                  to, width);                                                                                 \
    }
DEQUANTIZE(2, float, dequantize_2)
DEQUANTIZE(3, float, dequantize_3)
DEQUANTIZE(4, float, dequantize_4)
DEQUANTIZE(8, float, dequantize_8)
DEQUANTIZE(2, double, dequantize_2_double)
DEQUANTIZE(3, double, dequantize_3_double)
DEQUANTIZE(4, double, dequantize_4_double)
DEQUANTIZE(8, double, dequantize_8_double)

template <typename T>
using Dequantize = void (*)(const uint32_t *, int64_t, const T *, const T *, const int32_t *, T *, int64_t);

template <typename T> Dequantize<T> dequantize_function(int bits) {
    if constexpr (std::is_same_v<T, float>) {
        return bits == 2 ? dequantize_2 : bits == 3 ? dequantize_3 : bits == 4 ? dequantize_4 : dequantize_8;
    } else {
        return bits == 2   ? dequantize_2_double
               : bits == 3 ? dequantize_3_double
               : bits == 4 ? dequantize_4_double
                           : dequantize_8_double;
    }
}

template <typename T>
void dequantize(const GroupWeights &w, int64_t first, int64_t count, int64_t start, int64_t width, T *tile) {
    const int64_t values = w.values_of_a_block(), words = w.words_of_a_block();
    const int32_t *order = w.order;
    // The groups that the tile touches: a range, or with `order` any of them.
    const int64_t low = order ? 0 : first / w.group_size;
    const int64_t high = order ? w.groups : (first + count - 1) / w.group_size + 1;
    std::vector<T> scales((high - low) * width), zeros((high - low) * width);
    for (int64_t g = low; g < high; ++g) {
        read_row(w.scales, w.outputs, g, start, width, scales.data() + (g - low) * width);
        read_zeros(w, g, start, width, zeros.data() + (g - low) * width);
    }
    const auto function = dequantize_function<T>(w.bits);
    const int64_t stride = w.outputs;
    ckernels::parallel_for(0, count / values, std::max<int64_t>(1, 32768 / (values * width)), [&](int64_t from, int64_t to) {
        int32_t rows[32];
        for (int64_t block = from; block < to; ++block) {
            const int64_t input = first + block * values;
            for (int64_t k = 0; k < values; ++k) {
                const int64_t group = order ? order[input + k] : (input + k) / w.group_size;
                rows[k] = static_cast<int32_t>(group - low);
            }
            function(w.packed + input / values * words * stride + start, stride, scales.data(), zeros.data(), rows,
                     tile + block * values * width, width);
        }
    });
}

// MARK: Few rows, straight from the packed integers (GEMV)

/// Outputs per block, so that their accumulators stay in the L1 cache.
constexpr int64_t strip = 512;

/// sums[r][o] += Σ_k x[r][k] · value k of the block, for a block of outputs.
template <int BITS, int ROWS, int... K>
CK_INLINED void accumulate_block(std::integer_sequence<int, K...>, const uint32_t *words, int64_t stride, const float *x,
                                 int64_t x_stride, float *sums, int64_t width) {
    float factors[ROWS][sizeof...(K)];
    for (int r = 0; r < ROWS; ++r) ((factors[r][K] = x[r * x_stride + K]), ...);
    for (int64_t o = 0; o < width; ++o) {
        float sum[ROWS];
        for (int r = 0; r < ROWS; ++r) sum[r] = sums[r * strip + o];
        (
            [&]() __attribute__((always_inline)) {
                const float number = static_cast<float>(value<BITS, K>(words + o, stride));
                for (int r = 0; r < ROWS; ++r) sum[r] += number * factors[r][K];
            }(),
            ...);
        for (int r = 0; r < ROWS; ++r) sums[r * strip + o] = sum[r];
    }
}

template <int BITS, int ROWS>
CK_INLINED void accumulate(const uint32_t *words, int64_t blocks, int64_t stride, const float *x, int64_t x_stride, float *sums,
                           int64_t width) {
    for (int64_t block = 0; block < blocks; ++block) {
        accumulate_block<BITS, ROWS>(std::make_integer_sequence<int, Block<BITS>::values>(),
                                     words + block * Block<BITS>::words * stride, stride, x + block * Block<BITS>::values,
                                     x_stride, sums, width);
    }
}

#define ACCUMULATE(BITS, ROWS)                                                                                       \
    CK_CLONES void accumulate_##BITS##_##ROWS(const uint32_t *words, int64_t blocks, int64_t stride, const float *x, \
                                              int64_t x_stride, float *sums, int64_t width) {                        \
        accumulate<BITS, ROWS>(words, blocks, stride, x, x_stride, sums, width);                                     \
    }
#define ACCUMULATE_ALL(BITS) ACCUMULATE(BITS, 1) ACCUMULATE(BITS, 2) ACCUMULATE(BITS, 4)
ACCUMULATE_ALL(2)
ACCUMULATE_ALL(3)
ACCUMULATE_ALL(4)
ACCUMULATE_ALL(8)

using Accumulate = void (*)(const uint32_t *, int64_t, int64_t, const float *, int64_t, float *, int64_t);

Accumulate accumulate_function(int bits, int rows) {
    switch (bits) {
        case 2: return rows == 1 ? accumulate_2_1 : rows == 2 ? accumulate_2_2 : accumulate_2_4;
        case 3: return rows == 1 ? accumulate_3_1 : rows == 2 ? accumulate_3_2 : accumulate_3_4;
        case 4: return rows == 1 ? accumulate_4_1 : rows == 2 ? accumulate_4_2 : accumulate_4_4;
        default: return rows == 1 ? accumulate_8_1 : rows == 2 ? accumulate_8_2 : accumulate_8_4;
    }
}

/// y += scales · (sums − zeros · total)
CK_CLONES void finish_group(const float *sums, const float *scales, const float *zeros, float total, float *y, int64_t width) {
    for (int64_t o = 0; o < width; ++o) y[o] += scales[o] * (sums[o] - zeros[o] * total);
}

}  // namespace

namespace ckernels {

template <typename Number>
void dequantize_tile(const GroupWeights &w, int64_t first, int64_t count, int64_t start, int64_t width, Number *tile) {
    dequantize(w, first, count, start, width, tile);
}

template void dequantize_tile(const GroupWeights &, int64_t, int64_t, int64_t, int64_t, float *);
template void dequantize_tile(const GroupWeights &, int64_t, int64_t, int64_t, int64_t, double *);

void multiply_few_rows(const GroupWeights &w, const float *x, int64_t rows, float *y) {
    const int64_t values = w.values_of_a_block(), words = w.words_of_a_block();
    const int64_t inputs = w.inputs, outputs = w.outputs, groups = w.groups;
    // Σ x over each group, the factor of its zero point.
    std::vector<float> totals(rows * groups, 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < inputs; ++i) totals[r * groups + i / w.group_size] += x[r * inputs + i];
    }
    const int64_t strips = (outputs + strip - 1) / strip;
    ckernels::parallel_for(0, strips, 1, [&](int64_t from, int64_t to) {
        std::vector<float> sums(4 * strip), scales(strip), zeros(strip);
        for (int64_t index = from; index < to; ++index) {
            const int64_t start = index * strip, width = std::min(strip, outputs - start);
            for (int64_t r = 0; r < rows; ++r) std::fill_n(y + r * outputs + start, width, 0.0f);
            for (int64_t g = 0; g < groups; ++g) {
                read_row(w.scales, w.outputs, g, start, width, scales.data());
                read_zeros(w, g, start, width, zeros.data());
                const int64_t first = g * w.group_size, count = std::min(w.group_size, inputs - first);
                for (int64_t r = 0; r < rows;) {
                    const int together = rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
                    std::fill_n(sums.data(), together * strip, 0.0f);
                    accumulate_function(w.bits, together)(w.packed + first / values * words * outputs + start, count / values,
                                                          outputs, x + r * inputs + first, inputs, sums.data(), width);
                    for (int k = 0; k < together; ++k) {
                        finish_group(sums.data() + k * strip, scales.data(), zeros.data(), totals[(r + k) * groups + g],
                                     y + (r + k) * outputs + start, width);
                    }
                    r += together;
                }
            }
        }
    });
}

}  // namespace ckernels
