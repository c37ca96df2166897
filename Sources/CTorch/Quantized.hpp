// A matrix that is stored in fewer bits than it is multiplied in, and the kernels that read it.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "Bridge.hpp"

namespace ctorch {

/// W [outputs, inputs] by rows, in one of three forms:
/// - uint8 codes, two 4-bit indices into a table a byte, the first in the high half; one scale for `block` numbers
///   (Dettmers et al. 2023), which may be stored as bytes themselves (`nested`);
/// - int8 with a scale for each row (Dettmers et al. 2022);
/// - 16-bit floats.
struct StoredMatrix {
    at::Tensor codes;
    /// float32 [blocks] or [outputs]; uint8 [blocks] where they are nested.
    at::Tensor scales;
    /// float32 [16], what the indices mean.
    at::Tensor table;
    /// float32 [blocks / 256] and float32 [256]: scale = nested_table[byte] · nested_scales[block / 256] + offset.
    at::Tensor nested_scales, nested_table;
    double offset = 0;
    int64_t block = 64, outputs = 0, inputs = 0;

    bool has_blocks() const { return codes.scalar_type() == at::kByte; }
    bool has_rows() const { return codes.scalar_type() == at::kChar; }
    int64_t count() const { return outputs * inputs; }
    int64_t blocks() const { return (count() + block - 1) / block; }
    /// Throws where the parts don't fit each other.
    void check() const;
    /// Scales of blocks first..<end as float32.
    at::Tensor block_scales(int64_t first, int64_t end) const;
    /// x [rows, inputs] Wᵀ → [rows, outputs] and g [rows, outputs] W → [rows, inputs], by tiles, in the type of what is given.
    at::Tensor product(const at::Tensor &x) const;
    at::Tensor transposed_product(const at::Tensor &gradient) const;
};

/// The matrix, its parts checked and end to end.
StoredMatrix stored_matrix(const CTStoredMatrix *);

/// Rows that the kernels for decoding take at most.
constexpr int64_t few_stored_rows = 8;

/// Rows first..<first + count of W into `tile`, contiguous float32 on the CPU.
void dequantize_rows(const StoredMatrix &, int64_t first, int64_t count, float *tile);
/// y [rows, outputs] = x [rows, inputs] Wᵀ for up to `few_stored_rows` contiguous float32 rows on the CPU.
void multiply_stored(const StoredMatrix &, const float *x, int64_t rows, float *y);

/// The same in parts: x is put into the order that the kernel for W reads it in once.
class StoredProduct {
public:
    StoredProduct(const StoredMatrix &, const float *x, int64_t rows, float *y);
    ~StoredProduct();
    /// Outputs first ..< end, on the thread that calls.
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
