// Quantized matrices and the kernels that read them.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "Bridge.hpp"

namespace ctorch {

/// W [outputs, inputs], row-major, in one of three formats:
/// - uint8 codes, two 4-bit indices into a table per byte, the first in the high half; one scale per `block` weights
///   (Dettmers et al. 2023), which may itself be quantized to bytes (`nested`);
/// - int8 with one scale per row (Dettmers et al. 2022);
/// - 16-bit floats.
struct StoredMatrix {
    at::Tensor codes;
    /// float32 [blocks] or [outputs]; uint8 [blocks] if nested.
    at::Tensor scales;
    /// float32 [16], the values of the 4-bit indices.
    at::Tensor table;
    /// float32 [blocks / 256] and float32 [256]: scale = nested_table[byte] · nested_scales[block / 256] + offset.
    at::Tensor nested_scales, nested_table;
    double offset = 0;
    int64_t block = 64, outputs = 0, inputs = 0;

    bool has_blocks() const { return codes.scalar_type() == at::kByte; }
    bool has_rows() const { return codes.scalar_type() == at::kChar; }
    int64_t count() const { return outputs * inputs; }
    int64_t blocks() const { return (count() + block - 1) / block; }
    /// Throws if the parts are inconsistent.
    void check() const;
    /// Scales of blocks first..<end, dequantized to float32.
    at::Tensor block_scales(int64_t first, int64_t end) const;
    /// x [rows, inputs] Wᵀ → [rows, outputs] and g [rows, outputs] W → [rows, inputs], by tiles, in the argument's
    /// type.
    at::Tensor product(const at::Tensor &x) const;
    at::Tensor transposed_product(const at::Tensor &gradient) const;
};

/// The matrix with its parts checked and contiguous.
StoredMatrix stored_matrix(const CTStoredMatrix *);

/// Maximum rows of x for the decoding kernels.
constexpr int64_t few_stored_rows = 8;

/// Dequantizes rows first..<first + count of W into `tile`, contiguous float32 on the CPU.
void dequantize_rows(const StoredMatrix &, int64_t first, int64_t count, float *tile);
/// y [rows, outputs] = x [rows, inputs] Wᵀ for up to `few_stored_rows` contiguous float32 rows on the CPU.
void multiply_stored(const StoredMatrix &, const float *x, int64_t rows, float *y);

/// The same in chunks of outputs: x is reordered once for the kernel of W's format.
class StoredProduct {
public:
    StoredProduct(const StoredMatrix &, const float *x, int64_t rows, float *y);
    ~StoredProduct();
    /// Outputs first ..< end, on the calling thread.
    void make(int64_t first, int64_t end) const;

private:
    struct Kernel;
    const StoredMatrix &w;
    const float *x;
    int64_t rows;
    float *y;
    std::unique_ptr<Kernel> kernel;
};

}  // namespace ctorch
