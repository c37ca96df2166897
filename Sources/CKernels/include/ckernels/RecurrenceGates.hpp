// Rates and decays of recurrences from what a layer projects.
#pragma once

#include <cstdint>

namespace ckernels {

/// With s = softplus(decays + shifts) and a = −e^factors: β = sigmoid(rates) and g = a s of the gated delta rule, or without
/// `rates`, the step sizes β = s, bounded, and g = a β of a state space. All but factors and shifts [heads] are [tokens, heads].
struct RecurrenceGates {
    int64_t tokens, heads;
    /// NULL for a state space.
    const float *rates;
    const float *decays, *factors, *shifts;
    /// Bounds of a state space's step sizes.
    float lower, upper;
};

void recurrence_gates(const RecurrenceGates &, float *rates, float *decays);

/// The gradients w.r.t. the inputs of the same names, given those w.r.t. β and g. All but that w.r.t. the decays may be NULL.
void recurrence_gates_backward(const RecurrenceGates &, const float *rate_gradient, const float *decay_gradient, float *to_rates,
                               float *to_decays, float *to_factors, float *to_shifts);

}  // namespace ckernels
