// Quantized matrices.
#pragma once

#include <ATen/core/Tensor.h>

#include "Bridge.hpp"
#include "ckernels/StoredWeights.hpp"

namespace ctorch {

/// W [outputs, inputs], row-major, in one of three formats:
/// - blocks: uint8 codes, two 4-bit indices into a table per byte, the first in the high half; one scale per `block` weights
///   (Dettmers et al. 2023), which may itself be quantized to bytes (`nested`);
/// - rows: int8 with one scale per row (Dettmers et al. 2022);
/// - 16-bit floats.
struct StoredMatrix {
    CTWeightFormat format = CT_WEIGHT_FLOATS;
    at::Tensor codes;
    /// float32 [blocks] or [outputs]; uint8 [blocks] if nested.
    at::Tensor scales;
    /// float32 [16], the values of the 4-bit indices.
    at::Tensor table;
    /// float32 [blocks / 256] and float32 [256]: scale = nested_table[byte] · nested_scales[block / 256] + offset.
    at::Tensor nested_scales, nested_table;
    double offset = 0;
    int64_t block = 64, outputs = 0, inputs = 0;

    bool has_blocks() const { return format == CT_WEIGHT_BLOCKS; }
    bool has_rows() const { return format == CT_WEIGHT_ROWS; }
    int64_t count() const { return outputs * inputs; }
    int64_t blocks() const { return (count() + block - 1) / block; }
    /// Throws if the parts are inconsistent.
    void check() const;
    /// The matrix, whose parts must be contiguous and on the CPU, as the kernels read it.
    ckernels::StoredWeights weights() const;
    /// Scales of blocks first..<end, dequantized to float32.
    at::Tensor block_scales(int64_t first, int64_t end) const;
    /// x [rows, inputs] Wᵀ → [rows, outputs] and g [rows, outputs] W → [rows, inputs], by tiles, in the argument's
    /// type.
    at::Tensor product(const at::Tensor &x) const;
    at::Tensor transposed_product(const at::Tensor &gradient) const;
    /// The same with `count` rows of W from `first` on, into y [rows, count] and `result` [rows, inputs].
    void multiply_rows(const at::Tensor &x, int64_t first, int64_t count, at::Tensor &y) const;
    void multiply_rows_transposed(const at::Tensor &gradient, int64_t first, int64_t count, at::Tensor &result) const;
};

/// The matrix with its parts checked and contiguous.
StoredMatrix stored_matrix(const CTStoredMatrix *);

}  // namespace ctorch
