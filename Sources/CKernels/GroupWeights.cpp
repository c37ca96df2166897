// Dequantizes tiles of packed integers. All loops run along the outputs, which are contiguous, so that the compiler vectorizes them.
#include "ckernels/GroupWeights.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "GroupValues.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using namespace ckernels;

template <int BITS, int K, typename T>
CK_INLINED void dequantize_value(const uint32_t *words, int64_t stride, const T *scales, const T *zeros, T *to, int64_t width) {
    for (int64_t o = 0; o < width; ++o) {
        to[o] = scales[o] * (static_cast<T>(group_value<BITS, K>(words + o, stride)) - zeros[o]);
    }
}

/// `rows[k]` is the group of value k of the block.
template <int BITS, typename T, int... K>
CK_INLINED void dequantize_block(std::integer_sequence<int, K...>, const uint32_t *words, int64_t stride, const T *scales,
                                 const T *zeros, const int32_t *rows, T *to, int64_t width) {
    (dequantize_value<BITS, K>(words, stride, scales + rows[K] * width, zeros + rows[K] * width, to + K * width, width), ...);
}

#define DEQUANTIZE(BITS, T, NAME)                                                                                            \
    CK_CLONES void NAME(const uint32_t *words, int64_t stride, const T *scales, const T *zeros, const int32_t *rows, T *to,  \
                        int64_t width) {                                                                                     \
        dequantize_block<BITS, T>(std::make_integer_sequence<int, GroupBlock<BITS>::values>(), words, stride, scales, zeros, \
                                  rows, to, width);                                                                          \
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
    parallel_for(0, count / values, std::max<int64_t>(1, 32768 / (values * width)), [&](int64_t from, int64_t to) {
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

}  // namespace

namespace ckernels {

template <typename Number>
void dequantize_tile(const GroupWeights &w, int64_t first, int64_t count, int64_t start, int64_t width, Number *tile) {
    dequantize(w, first, count, start, width, tile);
}

template void dequantize_tile(const GroupWeights &, int64_t, int64_t, int64_t, int64_t, float *);
template void dequantize_tile(const GroupWeights &, int64_t, int64_t, int64_t, int64_t, double *);

}  // namespace ckernels
