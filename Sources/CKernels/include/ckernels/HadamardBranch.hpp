// Branches whose ΔW is the Hadamard product of two low-rank products (LoHa, Hyeon-Woo et al. 2022), for few rows in fp32.
#pragma once

#include <cstdint>

namespace ckernels {

/// ΔW [outputs, inputs] = (B₁ᵀ A₁) ∘ (B₂ᵀ A₂), with contiguous A [rank, inputs] and B [rank, outputs].
struct HadamardFactors {
    const float *a1, *b1, *a2, *b2;
    int64_t rank;
};

/// y += s · x ΔWᵀ on the calling thread, with contiguous y [rows, outputs] and x [rows, inputs].
///
/// Output i of a row is Σ_jk b₁_ji b₂_ki t_jk with t = A₁ diag(x) A₂ᵀ [rank, rank]. Neither ΔW is formed nor its factors of rank²,
/// which are `rank` times as large as these: with many adapters, memory is the limit.
void add_hadamard(float *y, const float *x, int64_t rows, int64_t inputs, int64_t outputs, const HadamardFactors &, float scale);

}  // namespace ckernels
