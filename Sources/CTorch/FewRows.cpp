#include "FewRows.hpp"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include "Elements.hpp"
#include "ckernels/FewRows.hpp"

namespace ctorch {

bool is_for_few_rows(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
    return is_float(x) && is_float(weight) && weight.dim() == 2 && x.dim() >= 1 && weight.size(1) > 0 &&
           x.size(-1) == weight.size(1) && x.numel() <= ckernels::few_dense_rows * weight.size(1) && weight.stride(1) == 1 &&
           x.is_contiguous() && (!bias.defined() || (is_float(bias) && bias.is_contiguous() && bias.numel() == weight.size(0))) &&
           !(at::GradMode::is_enabled() &&
             (x.requires_grad() || weight.requires_grad() || (bias.defined() && bias.requires_grad())));
}

at::Tensor multiply_few(const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    at::Tensor y = at::empty(shape, x.options());
    const int64_t inputs = weight.size(1), outputs = weight.size(0), rows = x.numel() / inputs;
    ckernels::multiply_few(floats(weight), weight.stride(0), floats(x), rows, inputs, mutable_floats(y), outputs,
                           bias.defined() ? floats(bias) : nullptr);
    return y;
}

}  // namespace ctorch
