// Products of packed integers with rows of x that are integers too, for processors with dot products of bytes.
//
// Each value of x is rounded to 24 bits on a grid of its chunk of inputs and split into three signed bytes: x = factor ·
// (d₀ + 2⁸ d₁ + 2¹⁶ d₂). The three dot products of bytes are exact, so that the result is as precise as in fp32.
#pragma once

#include <cstdint>
#include <vector>

#include "Simd.hpp"
#include "ckernels/GroupWeights.hpp"

#if defined(__x86_64__)

namespace ckernels {

/// x [rows, inputs] as integers, for a matrix.
struct GroupIntegers {
    static constexpr int digits = 3;

    /// The instructions that multiply bytes: of AVX2 for 2 and 4 bits, or VNNI's of AVX-512.
    enum class Kernel { none, avx2, vnni };
    Kernel kernel = Kernel::none;
    /// [rows, digits, inputs], in the order in which the bytes of a word hold values.
    std::vector<int8_t> bytes;
    /// [rows, chunks]: the step of a chunk's grid, and the sum of its values.
    std::vector<float> factors, totals;
    /// Inputs per chunk: a part of a group, at most 128, or 32 with AVX2.
    int64_t chunk = 0, chunks = 0;

    /// The kernel that multiplies matrices of this layout by that many rows of x faster than in fp32.
    static Kernel kernel_for(const GroupWeights &, int64_t rows);
    /// Converts x for a kernel. Rows with an infinite value or NaN give NaN; values of chunks below 10⁻³⁰ are rounded to multiples of 10⁻³⁷.
    void read(const GroupWeights &, Kernel, const float *x, int64_t rows);
    /// Writes y [rows, outputs] for outputs first ..< end, `first` a multiple of 16.
    void multiply(const GroupWeights &, int64_t rows, float *y, int64_t first, int64_t end) const;

    /// A chunk of inputs of the matrix.
    struct Chunk {
        const uint32_t *packed;
        int64_t words;
        /// Row of scales and zero points.
        int64_t group;
        /// Offset of its first input.
        int64_t first;
    };
    Chunk chunk_of(const GroupWeights &, int64_t index) const;
};

/// Rows whose sums fit the registers.
constexpr int64_t integer_rows_at_once = 3;

/// Adds the products of chunk `index` and the rows row ..< row + count of x, at most `integer_rows_at_once`, to outputs
/// first ..< end of y.
void add_integer_rows_vnni(const GroupWeights &, const GroupIntegers &, int64_t index, int64_t row, int64_t count, float *y,
                           int64_t first, int64_t end);
void add_integer_rows_avx2(const GroupWeights &, const GroupIntegers &, int64_t index, int64_t row, int64_t count, float *y,
                           int64_t first, int64_t end);

}  // namespace ckernels

#endif
