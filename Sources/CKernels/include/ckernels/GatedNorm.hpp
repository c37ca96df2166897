// Root-mean-square normalization with a gate, of groups of values of each token.
#pragma once

#include <cstdint>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// y = x̂ ⊙ w ⊙ silu(gate), or with the gate first the same of u = x ⊙ silu(gate): y = û ⊙ w. `Number` is float or BFloat.
template <typename Number> struct GatedNorm {
    int64_t tokens, groups, size;
    bool has_gate_first;
    float epsilon;
    /// [tokens, groups, size]; rows of the gate's tokens are `gate_stride` apart.
    const Number *x, *gate;
    int64_t gate_stride;
    /// w [groups, size], or [size] for all groups.
    const float *weight;
    bool has_weights_of_groups;
};

/// `inverse` [tokens, groups] receives (mean(x²) + ε)^−½, or that of u.
template <typename Number> void gated_norm(const GatedNorm<Number> &, Number *y, float *inverse);

/// Gradients w.r.t. x and gate, both contiguous, and unless NULL, w.r.t. the weight.
template <typename Number>
void gated_norm_backward(const GatedNorm<Number> &, const Number *gradient, const float *inverse, Number *to_x, Number *to_gate,
                         float *to_weight);

}  // namespace ckernels
