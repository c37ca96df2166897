// Rounding of the columns of a matrix in GPTQ (Frantar et al. 2022).
#pragma once

#include <cstdint>

namespace ckernels {

/// A matrix that is quantized to integers in groups, in float64.
struct ColumnQuantizer {
    /// [outputs, inputs]; the columns of a block receive the errors of those before them.
    double *weight;
    int64_t outputs, inputs;
    int bits;
    int64_t group_size;
    bool symmetric;
    /// Upper triangular U with Uᵀ U = H⁻¹, [inputs, inputs]; NULL where errors are not compensated.
    const double *factor;
    /// [outputs, inputs]
    int32_t *integers;
    /// [outputs, groups]
    double *scales, *zeros;
    /// The errors of a block's columns, [outputs, error_stride].
    double *errors;
    int64_t error_stride;

    int64_t groups() const { return (inputs + group_size - 1) / group_size; }
    /// Quantizes columns first ..< end and compensates their errors within them.
    void quantize(int64_t first, int64_t end) const;
};

}  // namespace ckernels
