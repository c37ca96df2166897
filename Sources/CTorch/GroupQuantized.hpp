// Group-wise quantized matrices: declarations shared by their kernels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

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
};

/// Maximum rows of x for the kernel that reads the packed integers directly.
constexpr int64_t few_rows = 8;

/// Writes W[o, i] for i in [first, first + count) and o in [start, start + width) to `tile` [count, width], float or
/// double, on the CPU; `first` and `count` are multiples of 32.
void dequantize_tile(const GroupMatrix &, int64_t first, int64_t count, int64_t start, int64_t width,
                     at::Tensor &tile);

/// y [rows, outputs] = x [rows, inputs] Wᵀ for at most ``few_rows`` fp32 rows on the CPU, without `order`.
void multiply_few_rows(const GroupMatrix &, const at::Tensor &x, at::Tensor &y);

/// Unsigned integers of `bits` bits along `axis` (0 or 1) of a matrix as int32 words, lowest bits first.
at::Tensor pack_bits(const at::Tensor &values, int bits, int64_t axis);
/// The integers (int32) that ``pack_bits`` packed.
at::Tensor unpack_bits(const at::Tensor &packed, int bits, int64_t axis);

}  // namespace ctorch
