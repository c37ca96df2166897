// The row-wise kernels of CKernels on tensors.
#pragma once

#include <ATen/core/Tensor.h>

#include "Elements.hpp"
#include "ctorch.h"

namespace ctorch {

/// Whether these kernels apply. All arguments of a kernel have one type, except a norm's weight and r, which are fp32.
template <typename... Others> bool have_row_kernels(const at::Tensor &x, const Others &...others) {
    return is_row_major(x) && ((is_row_major(others) && others.scalar_type() == x.scalar_type()) && ...);
}

/// y = x · r · w with r = (mean(x²) + ε)^−½ of each row; `inverse` [rows] receives r. x [rows, size], w [size].
void rms_norm_rows(const at::Tensor &x, const at::Tensor &weight, float epsilon, at::Tensor &y, at::Tensor &inverse);
/// The gradient w.r.t. x: r · (g w − x̂ · mean(g w x̂)) with x̂ = x r.
void rms_norm_rows_backward(const at::Tensor &gradient, const at::Tensor &x, const at::Tensor &weight, const at::Tensor &inverse,
                            at::Tensor &to_x);

/// Whether f has a kernel for f(gate) ⊙ up.
bool has_gate_kernel(CTActivation kind);
void gate_rows(CTActivation kind, const at::Tensor &gate, const at::Tensor &up, at::Tensor &y);
void gate_rows_backward(CTActivation kind, const at::Tensor &gradient, const at::Tensor &gate, const at::Tensor &up,
                        at::Tensor &to_gate, at::Tensor &to_up);

/// RoPE: rotates the first 2p components of x [tokens, heads, size] as pairs (i, i + p), or (2i, 2i + 1) if interleaved,
/// angles [tokens, p]; `direction` is 1, or −1 for the inverse.
void rotate_rows(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, float direction, bool interleaved,
                 at::Tensor &y);

}  // namespace ctorch
