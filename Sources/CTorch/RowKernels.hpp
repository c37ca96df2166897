// Row-wise kernels for fp32 and bf16 on the CPU that fuse what libtorch does in several passes: each reads and writes
// memory once, and computes in fp32.
#pragma once

#include <ATen/core/Tensor.h>

#include "ctorch.h"

namespace ctorch {

/// Whether these kernels apply to the tensor: contiguous fp32 or bf16 on the CPU. (Or on the meta device, where
/// nothing is computed and memory is counted as on the CPU.) All arguments of a kernel have one type, except a norm's
/// weight and r, which are fp32.
inline bool has_row_kernel(const at::Tensor &x) {
    return (x.is_cpu() || x.is_meta()) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
           x.is_contiguous();
}

/// Whether they apply to all of them.
template <typename... Others> bool have_row_kernels(const at::Tensor &x, const Others &...others) {
    return has_row_kernel(x) && ((has_row_kernel(others) && others.scalar_type() == x.scalar_type()) && ...);
}

/// y = x · r · w with r = (mean(x²) + ε)^−½ of each row; `inverse` [rows] receives r. x [rows, size], w [size].
void rms_norm_rows(const at::Tensor &x, const at::Tensor &weight, float epsilon, at::Tensor &y, at::Tensor &inverse);
/// The gradient w.r.t. x: r · (g w − x̂ · mean(g w x̂)) with x̂ = x r.
void rms_norm_rows_backward(const at::Tensor &gradient, const at::Tensor &x, const at::Tensor &weight,
                            const at::Tensor &inverse, at::Tensor &to_x);

/// Whether f has a kernel for f(gate) ⊙ up.
bool has_gate_kernel(CTActivation kind);
void gate_rows(CTActivation kind, const at::Tensor &gate, const at::Tensor &up, at::Tensor &y);
void gate_rows_backward(CTActivation kind, const at::Tensor &gradient, const at::Tensor &gate, const at::Tensor &up,
                        at::Tensor &to_gate, at::Tensor &to_up);

/// RoPE: rotates the first 2p components of x [tokens, heads, size] as pairs (i, i + p), angles [tokens, p];
/// `direction` is 1, or −1 for the inverse.
void rotate_rows(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, float direction,
                 at::Tensor &y);

}  // namespace ctorch
