// Row-wise kernels that fuse what libtorch does in several passes: each reads and writes memory once, and computes in
// fp32. `Number` is float or BFloat.
#pragma once

#include <cstdint>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// y = x · r · w with r = (mean(x²) + ε)^−½ of each row; `inverse` [rows] receives r. x [rows, size], w [size].
template <typename Number>
void rms_norm_rows(const Number *x, const float *weight, float epsilon, Number *y, float *inverse, int64_t rows, int64_t size);
/// The gradient w.r.t. x: r · (g w − x̂ · mean(g w x̂)) with x̂ = x r.
template <typename Number>
void rms_norm_rows_backward(const Number *gradient, const Number *x, const float *weight, const float *inverse, Number *to_x,
                            int64_t rows, int64_t size);

/// Activations f of f(gate) ⊙ up.
enum class Gate { relu, gelu_tanh, silu };

/// y = f(gate) ⊙ up.
template <typename Number> void gate_rows(Gate, const Number *gate, const Number *up, Number *y, int64_t count);
template <typename Number>
void gate_rows_backward(Gate, const Number *gradient, const Number *gate, const Number *up, Number *to_gate, Number *to_up,
                        int64_t count);

/// RoPE: rotates the first 2p components of x [tokens, heads, size] as pairs (i, i + p), or (2i, 2i + 1) if interleaved,
/// cosines and sines [tokens, p]; `direction` is 1, or −1 for the inverse.
template <typename Number>
void rotate_rows(const Number *x, const Number *cosines, const Number *sines, float direction, Number *y, int64_t tokens,
                 int64_t heads, int64_t size, int64_t pairs, bool interleaved);

}  // namespace ckernels
