#include "ckernels/GroupProduct.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "GroupIntegers.hpp"
#include "GroupValues.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using namespace ckernels;

/// Outputs per strip, so that their accumulators stay in the L1 cache.
constexpr int64_t strip = 512;

/// sums[r][o] += Σ_k x[r][k] · value k of the block, for a block of outputs, which are contiguous, so that the compiler vectorizes
/// the loop.
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
                const float number = static_cast<float>(group_value<BITS, K>(words + o, stride));
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
        accumulate_block<BITS, ROWS>(std::make_integer_sequence<int, GroupBlock<BITS>::values>(),
                                     words + block * GroupBlock<BITS>::words * stride, stride,
                                     x + block * GroupBlock<BITS>::values, x_stride, sums, width);
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

/// Σ x over each group [rows, groups], the factor of its zero point.
std::vector<float> totals_of(const GroupWeights &w, const float *x, int64_t rows) {
    std::vector<float> totals(static_cast<size_t>(rows * w.groups), 0.0f);
    for (int64_t r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < w.inputs; ++i) totals[r * w.groups + i / w.group_size] += x[r * w.inputs + i];
    }
    return totals;
}

/// Any processor: the integers are converted to fp32.
void multiply_floats(const GroupWeights &w, const float *x, const float *totals, int64_t rows, float *y, int64_t first,
                     int64_t end) {
    const int64_t values = w.values_of_a_block(), words = w.words_of_a_block();
    std::vector<float> sums(4 * strip), scales(strip), zeros(strip);
    for (int64_t start = first; start < end; start += strip) {
        const int64_t width = std::min(strip, end - start);
        for (int64_t r = 0; r < rows; ++r) std::fill_n(y + r * w.outputs + start, width, 0.0f);
        for (int64_t g = 0; g < w.groups; ++g) {
            read_row(w.scales, w.outputs, g, start, width, scales.data());
            read_zeros(w, g, start, width, zeros.data());
            const int64_t at = g * w.group_size, count = std::min(w.group_size, w.inputs - at);
            for (int64_t r = 0; r < rows;) {
                const int together = rows - r >= 4 ? 4 : rows - r >= 2 ? 2 : 1;
                std::fill_n(sums.data(), together * strip, 0.0f);
                accumulate_function(w.bits, together)(w.packed + at / values * words * w.outputs + start, count / values,
                                                      w.outputs, x + r * w.inputs + at, w.inputs, sums.data(), width);
                for (int k = 0; k < together; ++k) {
                    finish_group(sums.data() + k * strip, scales.data(), zeros.data(), totals[(r + k) * w.groups + g],
                                 y + (r + k) * w.outputs + start, width);
                }
                r += together;
            }
        }
    }
}

/// Whether multiplying integers is disabled on this thread.
thread_local bool avoids_integers = false;

#if defined(__x86_64__)
using Integers = GroupIntegers::Kernel;

Integers integers_for(const GroupWeights &w, int64_t rows) {
    return avoids_integers ? Integers::none : GroupIntegers::kernel_for(w, rows);
}
#endif

}  // namespace

namespace ckernels {

void use_group_integers(bool allowed) { avoids_integers = !allowed; }

/// x as the kernel for W reads it.
struct GroupProduct::Kernel {
    std::vector<float> totals;
#if defined(__x86_64__)
    GroupIntegers integers;
#endif
    bool is_integer = false;
};

bool GroupProduct::supports(const GroupWeights &w) {
    return w.order == nullptr && w.group_size % w.values_of_a_block() == 0 && w.inputs % w.values_of_a_block() == 0;
}

int64_t GroupProduct::most_rows(const GroupWeights &w) {
#if defined(__x86_64__)
    constexpr int64_t most = 128;
    if (integers_for(w, most) == Integers::vnni) return most;
#else
    (void)w;
#endif
    return few_group_rows;
}

GroupProduct::GroupProduct(const GroupWeights &w, const float *x, int64_t rows, float *y)
    : w(w), x(x), rows(rows), y(y), kernel(std::make_unique<Kernel>()) {
#if defined(__x86_64__)
    const Integers integers = integers_for(w, rows);
    kernel->is_integer = integers != Integers::none;
    if (kernel->is_integer) {
        kernel->integers.read(w, integers, x, rows);
        return;
    }
#endif
    kernel->totals = totals_of(w, x, rows);
}

GroupProduct::~GroupProduct() = default;

void GroupProduct::make(int64_t first, int64_t end) const {
    if (rows == 0 || first >= end) return;
#if defined(__x86_64__)
    if (kernel->is_integer) return kernel->integers.multiply(w, rows, y, first, end);
#endif
    multiply_floats(w, x, kernel->totals.data(), rows, y, first, end);
}

void multiply_groups(const GroupWeights &w, const float *x, int64_t rows, float *y) {
    // Runs of the rows that are long enough for the processor's lookahead.
    constexpr int64_t block = 6 * GroupProduct::block;
    const GroupProduct product(w, x, rows, y);
    parallel_with_rest((w.outputs + block - 1) / block, std::max<int64_t>(1, 65536 / (block * w.inputs)),
                       [&](int64_t from, int64_t to) { product.make(from * block, std::min(to * block, w.outputs)); });
}

}  // namespace ckernels
