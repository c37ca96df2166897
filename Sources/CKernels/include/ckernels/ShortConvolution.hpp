// Causal convolutions of few taps along packed sequences, each channel by itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// y[i] = f(bias + Σ weight[:, t] ⊙ x[i − width + 1 + t]) with f the identity or SiLU. `Number` is float or BFloat.
template <typename Number> struct ShortConvolution {
    /// Where each sequence starts, and the end.
    std::vector<int64_t> offsets;
    int64_t channels, width;
    bool has_silu;
    /// [tokens, channels], whose rows are `stride` apart.
    const Number *x;
    int64_t stride;
    /// The inputs before each sequence, [rows, width − 1, channels]; NULL for zeros.
    const Number *before;
    /// [channels, width]
    const float *weight;
    /// [channels], or NULL.
    const float *bias;

    size_t rows() const { return offsets.size() - 1; }
};

/// y [tokens, channels]
template <typename Number> void short_convolution(const ShortConvolution<Number> &, Number *y);

/// The gradients w.r.t. x, contiguous, and unless NULL, w.r.t. weight and bias.
template <typename Number>
void short_convolution_backward(const ShortConvolution<Number> &, const Number *gradient, Number *to_x, float *to_weight,
                                float *to_bias);

/// The inputs before the tokens that follow, [rows, width − 1, channels].
template <typename Number> void last_inputs(const ShortConvolution<Number> &, Number *after);

}  // namespace ckernels
