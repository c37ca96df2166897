// Matmuls with one dequantized tile of a matrix.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include "Blas.hpp"

namespace ctorch {

/// result = a · b, or result += a · b; all have contiguous rows, b is a tile or a transposed tile.
inline void product(at::Tensor &result, const at::Tensor &a, const at::Tensor &tile, bool is_transposed, bool adds) {
    if (result.is_cpu() && result.scalar_type() == at::kFloat && has_fast_blas()) {
        // Untyped, since the typed accessors' symbol names differ between compilers in some versions of libtorch.
        const void *from = a.const_data_ptr(), *by = tile.const_data_ptr();
        matrix_product(false, is_transposed, a.size(0), result.size(1), a.size(1), static_cast<const float *>(from),
                       a.stride(0), static_cast<const float *>(by), tile.stride(0), adds ? 1 : 0,
                       static_cast<float *>(result.mutable_data_ptr()), result.stride(0));
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
