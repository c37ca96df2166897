// Tensors as the kernels read them: types, layouts and pointers.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

// Untyped, since the typed accessors' symbol names differ between compilers in some versions of libtorch.
template <typename Number> const Number *elements(const at::Tensor &x) { return static_cast<const Number *>(x.const_data_ptr()); }
template <typename Number> Number *mutable_elements(const at::Tensor &x) { return static_cast<Number *>(x.mutable_data_ptr()); }

inline const float *floats(const at::Tensor &x) { return elements<float>(x); }
inline float *mutable_floats(const at::Tensor &x) { return mutable_elements<float>(x); }

/// Whether the elements are fp32 on the CPU.
inline bool is_float(const at::Tensor &x) { return x.is_cpu() && x.scalar_type() == at::kFloat; }

/// Whether `floats(x)` is the whole tensor in row-major order.
inline bool is_plain(const at::Tensor &x) { return is_float(x) && x.is_contiguous(); }

/// Whether the tensor is contiguous fp32 or bf16 on the CPU, or on the meta device, where nothing is computed and memory
/// is counted as on the CPU.
inline bool is_row_major(const at::Tensor &x) {
    return (x.is_cpu() || x.is_meta()) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
           x.is_contiguous();
}

}  // namespace ctorch
