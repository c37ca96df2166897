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

    /// [rows, digits, inputs], in the order in which the bytes of a word hold values.
    std::vector<int8_t> bytes;
    /// [rows, chunks]: the step of a chunk's grid, and the sum of its values.
    std::vector<float> factors, totals;
    /// Inputs per chunk: a part of a group, at most 128.
    int64_t chunk = 0, chunks = 0;

    /// Whether the processor multiplies matrices of this layout faster than in fp32.
    static bool apply_to(const GroupWeights &);
    /// Converts x. Rows with an infinite value or NaN give NaN; values of chunks below 10⁻³⁰ are rounded to multiples of 10⁻³⁷.
    void read(const GroupWeights &, const float *x, int64_t rows);
    /// Writes y [rows, outputs] for outputs first ..< end, `first` a multiple of 16.
    void multiply(const GroupWeights &, int64_t rows, float *y, int64_t first, int64_t end) const;
};

}  // namespace ckernels

#endif
