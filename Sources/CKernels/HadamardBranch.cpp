#include "ckernels/HadamardBranch.hpp"

#include <memory>

#include "Simd.hpp"
#include "ckernels/FewRows.hpp"

namespace {

/// y [rows, size] = each row of a [rows, size] times x [size].
CK_CLONES void scale_columns(const float *a, const float *x, int64_t rows, int64_t size, float *y) {
    for (int64_t row = 0; row < rows; ++row) {
        for (int64_t i = 0; i < size; ++i) y[row * size + i] = a[row * size + i] * x[i];
    }
}

/// `width` outputs from `output` on, with the sums in registers.
template <int width>
CK_INLINED void add_columns(const float *b1, const float *b2, int64_t outputs, int64_t rank, const float *t, int64_t output,
                            float *y) {
    float sums[width] = {};
    int64_t j = 0;
    // Two at a time, so that an addition needn't wait for the one before it.
    for (; j + 2 <= rank; j += 2) {
        float first[width] = {}, second[width] = {};
        for (int64_t k = 0; k < rank; ++k) {
            const float one = t[j * rank + k], other = t[(j + 1) * rank + k];
            const float *own = b2 + k * outputs + output;
            for (int i = 0; i < width; ++i) {
                first[i] += one * own[i];
                second[i] += other * own[i];
            }
        }
        const float *one = b1 + j * outputs + output, *other = one + outputs;
        for (int i = 0; i < width; ++i) sums[i] += one[i] * first[i] + other[i] * second[i];
    }
    for (; j < rank; ++j) {
        float inner[width] = {};
        for (int64_t k = 0; k < rank; ++k) {
            const float factor = t[j * rank + k];
            const float *own = b2 + k * outputs + output;
            for (int i = 0; i < width; ++i) inner[i] += factor * own[i];
        }
        const float *own = b1 + j * outputs + output;
        for (int i = 0; i < width; ++i) sums[i] += own[i] * inner[i];
    }
    for (int i = 0; i < width; ++i) y[output + i] += sums[i];
}

/// y [outputs] += Σ_jk b₁_j ∘ b₂_k t_jk.
CK_CLONES void add_outputs(const float *b1, const float *b2, int64_t outputs, int64_t rank, const float *t, float *y) {
    int64_t output = 0;
    for (; output + 32 <= outputs; output += 32) add_columns<32>(b1, b2, outputs, rank, t, output, y);
    for (; output + 8 <= outputs; output += 8) add_columns<8>(b1, b2, outputs, rank, t, output, y);
    for (; output < outputs; ++output) add_columns<1>(b1, b2, outputs, rank, t, output, y);
}

}  // namespace

namespace ckernels {

void add_hadamard(float *y, const float *x, int64_t rows, int64_t inputs, int64_t outputs, const HadamardFactors &factors,
                  float scale) {
    const int64_t rank = factors.rank;
    const auto scaled = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rank * inputs));
    const auto t = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rank * rank));
    for (int64_t row = 0; row < rows; ++row) {
        scale_columns(factors.a1, x + row * inputs, rank, inputs, scaled.get());
        multiply_few_part(factors.a2, inputs, scaled.get(), rank, inputs, t.get(), rank, nullptr, Start::zero, 0, rank);
        for (int64_t i = 0; i < rank * rank; ++i) t[static_cast<size_t>(i)] *= scale;
        add_outputs(factors.b1, factors.b2, outputs, rank, t.get(), y + row * outputs);
    }
}

}  // namespace ckernels
