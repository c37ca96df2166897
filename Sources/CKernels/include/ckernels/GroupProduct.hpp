// GEMV-like kernels for few rows of x and group-wise quantized matrices, read as they are stored, for decode steps.
#pragma once

#include <memory>

#include "ckernels/GroupWeights.hpp"

namespace ckernels {

/// Maximum rows of x for which these kernels are the fastest on any processor.
constexpr int64_t few_group_rows = 8;

/// Enables or disables multiplying integers on the calling thread, for comparisons.
void use_group_integers(bool allowed);

/// y [rows, outputs] = x [rows, inputs] Wᵀ for contiguous rows, in chunks of outputs. Without `order`, and with groups of whole
/// blocks.
class GroupProduct {
public:
    /// Outputs per block.
    static constexpr int64_t block = 16;

    /// Whether the kernels read matrices of this layout.
    static bool supports(const GroupWeights &);
    /// Rows of x up to which these kernels are faster than a matmul with dequantized tiles.
    static int64_t most_rows(const GroupWeights &);

    GroupProduct(const GroupWeights &, const float *x, int64_t rows, float *y);
    ~GroupProduct();
    /// Outputs first ..< end, on the calling thread; `first` is a multiple of `block`.
    void make(int64_t first, int64_t end) const;

private:
    struct Kernel;
    GroupWeights w;
    const float *x;
    int64_t rows;
    float *y;
    std::unique_ptr<Kernel> kernel;
};

/// All outputs, on all threads.
void multiply_groups(const GroupWeights &, const float *x, int64_t rows, float *y);

}  // namespace ckernels
