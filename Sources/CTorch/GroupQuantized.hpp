// Group-wise quantized matrices.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ckernels/GroupWeights.hpp"
#include "ctorch.h"

namespace ctorch {

/// W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]) with g the group of input i; `zeros` are zero points.
struct GroupMatrix {
    /// int32 [inputs · bits / 32, outputs]: the values of one output along the inputs, lowest bits first.
    at::Tensor packed;
    /// [groups, outputs]
    at::Tensor scales;
    /// int32 [groups, outputs · bits / 32], packed along the outputs; or floats [groups, outputs].
    at::Tensor zeros;
    /// int32 [inputs], the group of each input; undefined where input i is in group i / group_size.
    at::Tensor order;
    int bits;
    int64_t group_size;
    /// Offset added to packed zero points: 1 in GPTQ's v1 format.
    int zero_offset;

    int64_t inputs() const { return packed.size(0) * 32 / bits; }
    int64_t outputs() const { return packed.size(1); }
    int64_t groups() const { return scales.size(0); }
    bool has_packed_zeros() const { return zeros.scalar_type() == at::kInt; }
    /// Throws if the shapes, types or groups are inconsistent.
    void check() const;
    /// The matrix, whose parts must be contiguous and on the CPU, as the kernels read it.
    ckernels::GroupWeights weights() const;
};

/// The matrix with its parts checked and contiguous.
GroupMatrix group_matrix(const at::Tensor &packed, const at::Tensor &scales, const at::Tensor &zeros, const at::Tensor &order,
                         int bits, int64_t group_size, int zero_offset);
GroupMatrix group_matrix(const CTGroupMatrix *);
/// y = x Wᵀ, x [rows, inputs], tile by tile, or for few rows straight from the packed integers; y [rows, outputs] has contiguous
/// rows.
void multiply(const GroupMatrix &, const at::Tensor &x, at::Tensor &y);
/// result = g W for g [rows, outputs]; the result [rows, inputs] has contiguous rows.
void multiply_transposed(const GroupMatrix &, const at::Tensor &gradient, at::Tensor &result);

/// The same in new tensors; half precision is computed in fp32 on a CPU.
at::Tensor product(const GroupMatrix &, const at::Tensor &x);
at::Tensor transposed_product(const GroupMatrix &, const at::Tensor &gradient);

/// Unsigned integers of `bits` bits along `axis` (0 or 1) of a matrix as int32 words, lowest bits first.
at::Tensor pack_bits(const at::Tensor &values, int bits, int64_t axis);
/// The integers (int32) that ``pack_bits`` packed.
at::Tensor unpack_bits(const at::Tensor &packed, int bits, int64_t axis);

}  // namespace ctorch
