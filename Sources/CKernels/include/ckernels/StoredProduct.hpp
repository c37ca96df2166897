// GEMV-like kernels for few rows of x and quantized or 16-bit matrices, read as they are stored, for decode steps.
#pragma once

#include <memory>

#include "ckernels/StoredWeights.hpp"

namespace ckernels {

/// Maximum rows of x for these kernels.
constexpr int64_t few_stored_rows = 8;

/// Enables or disables 512-bit vectors on the calling thread, for comparisons.
void use_wide_vectors(bool allowed);

/// y [rows, outputs] = x [rows, inputs] Wᵀ for up to `few_stored_rows` contiguous rows.
void multiply_stored(const StoredWeights &, const float *x, int64_t rows, float *y);

/// The same in chunks of outputs: x is reordered once for the kernel of W's format.
class StoredProduct {
public:
    StoredProduct(const StoredWeights &, const float *x, int64_t rows, float *y);
    ~StoredProduct();
    /// Outputs first ..< end, on the calling thread.
    void make(int64_t first, int64_t end) const;

private:
    struct Kernel;
    StoredWeights w;
    const float *x;
    int64_t rows;
    float *y;
    std::unique_ptr<Kernel> kernel;
};

}  // namespace ckernels
