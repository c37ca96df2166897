// Matmuls of matrices in the L1 and L2 caches, on the calling thread. BLAS copies its operands to panels first, which takes
// as long as the matmul at these sizes.
#pragma once

#include <cstdint>

namespace ckernels {

/// Columns that are computed at a time: rows of B and C have room for a multiple of it.
constexpr int64_t panel = 16;

/// Number of floats of a row with room for that.
constexpr int64_t padded(int64_t columns) { return (columns + panel - 1) / panel * panel; }

/// Distance of such rows. It isn't a power of two, so the rows of a panel don't compete for the same sets of the L1 cache.
constexpr int64_t row_stride(int64_t columns) { return padded(columns) + panel; }

/// A matrix with the distances of its rows and columns in floats; swapping them transposes it.
struct Factor {
    const float *data;
    int64_t row, column;
};

/// The elements that a matmul needs, where the others are known.
enum class Triangle {
    none,
    /// Those of A above the diagonal are zeros.
    lower,
    /// Those of A below the diagonal are zeros.
    upper,
    /// Those of C above the diagonal may have any value.
    lower_result,
};

/// C [m, n] = beta · C + A [m, k] B [k, n] with contiguous rows of B and C; C isn't read if beta is 0.
void small_product(int64_t m, int64_t n, int64_t k, const Factor &a, const float *b, int64_t b_stride, float beta, float *c,
                   int64_t c_stride, Triangle triangle = Triangle::none);

}  // namespace ckernels
