// AdamW with 8-bit moments (Dettmers et al. 2022, 8-bit optimizers via block-wise quantization).
#pragma once

#include "ckernels/DynamicCode.hpp"

namespace ckernels {

/// Quantized moments: a code per value, and the absolute maximum of each block of `DynamicCode::block` values.
struct Moments {
    const DynamicCode &code;
    uint8_t *codes;
    float *peaks;
};

/// m ← β₁ m + rest₁ g; v ← β₂ v + rest₂ g²; x ← decay · x + step · m / (√v / root + ε).
struct AdamWRates {
    float beta1, beta2, rest1, rest2, epsilon, decay, step, root;
};

/// One step of `count` values with their gradients.
void update_by_adamw(float *values, const float *gradients, const Moments &first, const Moments &second, int64_t count,
                     const AdamWRates &);

}  // namespace ckernels
