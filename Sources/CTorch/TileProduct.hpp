// Matmuls with one dequantized tile of a matrix.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include "Elements.hpp"
#include "ckernels/Blas.hpp"

namespace ctorch {

/// Elements of a dequantized tile on a CPU: 1 MB of floats, to fit in the L2 cache; for many rows of x, which each product packs
/// again, 4 MB.
inline int64_t tile_elements(int64_t rows) { return rows < 256 ? 262144 : 1048576; }

/// result = a · b, or result += a · b; all have contiguous rows, b is a tile or a transposed tile.
inline void product(at::Tensor &result, const at::Tensor &a, const at::Tensor &tile, bool is_transposed, bool adds) {
    if (result.is_cpu() && result.scalar_type() == at::kFloat && ckernels::has_fast_blas()) {
        ckernels::matrix_product(false, is_transposed, a.size(0), result.size(1), a.size(1), floats(a), a.stride(0), floats(tile),
                                 tile.stride(0), adds ? 1 : 0, mutable_floats(result), result.stride(0));
        return;
    }
    at::Tensor b = is_transposed ? tile.t() : tile;
    if (adds) {
        result.addmm_(a, b);
    } else {
        at::mm_out(result, a, b);
    }
}

}  // namespace ctorch
