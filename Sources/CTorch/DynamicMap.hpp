// The dynamic map of 8-bit optimizers (Dettmers et al. 2022, section 1.2).
#pragma once

#include <ATen/core/Tensor.h>

#include "ckernels/DynamicCode.hpp"

namespace ctorch {

/// 256 values in decades, with finer steps in the larger ones; in −1 … 1, or unsigned in 0 … 1 with twice as many.
at::Tensor dynamic_map(bool is_signed);

/// Codes in that map, built once per process.
const ckernels::DynamicCode &dynamic_code(bool is_signed);

}  // namespace ctorch
