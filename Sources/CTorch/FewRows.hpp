// Projections of few rows in fp32 on the CPU by the GEMV-like kernels (`ckernels/FewRows.hpp`).
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// x [rows, inputs] Wᵀ + b on all threads.
at::Tensor multiply_few(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias);

/// Whether `multiply_few` applies and is faster: no gradient is needed, and rows are few.
bool is_for_few_rows(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias);

}  // namespace ctorch
