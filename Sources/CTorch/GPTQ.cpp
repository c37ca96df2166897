// GPTQ (Frantar et al. 2022): columns are quantized one after another, and the rounding error of each is compensated
// in the columns that follow.
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky.h>

#include <algorithm>

#include "Bridge.hpp"
#include "Elements.hpp"
#include "ckernels/ColumnQuantizer.hpp"

using namespace ctorch;

namespace {

/// Columns whose errors are propagated beyond them at once (the paper's block size B).
constexpr int64_t block_size = 128;

/// Upper triangular U with Uᵀ U = H⁻¹, H damped by a fraction of its mean diagonal. Inputs that are always 0 get a
/// diagonal of 1, and weights of 0.
at::Tensor inverse_factor(const at::Tensor &hessian, at::Tensor &weight, double damping) {
    at::Tensor h = hessian.to(at::kDouble).clone();
    at::Tensor diagonal = h.diagonal();
    at::Tensor dead = diagonal.eq(0);
    diagonal.masked_fill_(dead, 1);
    weight.masked_fill_(dead.unsqueeze(0), 0);
    diagonal.add_(diagonal.mean().mul(damping));
    at::Tensor inverse = at::cholesky_inverse(at::linalg_cholesky(h));
    return at::linalg_cholesky(inverse, true).contiguous();
}

}  // namespace

extern "C" int ct_gptq(const CTTensor *weight_box, const CTTensor *hessian, int bits, int64_t group_size, bool symmetric,
                       double damping, CTTensor **values, CTTensor **scales, CTTensor **zeros) {
    return status_or_error([&] {
        at::Tensor weight = unbox(weight_box).to(at::kCPU, at::kDouble).clone().contiguous();
        const int64_t outputs = weight.size(0), inputs = weight.size(1);
        const int64_t groups = (inputs + group_size - 1) / group_size;
        const bool compensates = hessian && unbox(hessian).defined();
        at::Tensor factor = compensates ? inverse_factor(unbox(hessian).to(at::kCPU), weight, damping) : at::Tensor();
        at::Tensor q = at::empty({outputs, inputs}, at::kInt);
        at::Tensor scale = at::empty({outputs, groups}, at::kDouble), zero = at::empty({outputs, groups}, at::kDouble);
        at::Tensor errors = at::empty({outputs, std::min(block_size, inputs)}, at::kDouble);
        const ckernels::ColumnQuantizer quantizer{.weight = mutable_elements<double>(weight),
                                                  .outputs = outputs,
                                                  .inputs = inputs,
                                                  .bits = bits,
                                                  .group_size = group_size,
                                                  .symmetric = symmetric,
                                                  .factor = compensates ? elements<double>(factor) : nullptr,
                                                  .integers = mutable_elements<int32_t>(q),
                                                  .scales = mutable_elements<double>(scale),
                                                  .zeros = mutable_elements<double>(zero),
                                                  .errors = mutable_elements<double>(errors),
                                                  .error_stride = errors.size(1)};
        for (int64_t first = 0; first < inputs; first += block_size) {
            const int64_t end = std::min(first + block_size, inputs), width = end - first;
            at::Tensor lost = errors.narrow(1, 0, width);
            quantizer.quantize(first, end);
            if (compensates && end < inputs) {
                at::Tensor rest = weight.narrow(1, end, inputs - end);
                rest.addmm_(lost, factor.narrow(0, first, width).narrow(1, end, inputs - end), 1, -1);
            }
        }
        *values = box(q.t().contiguous());
        *scales = box(scale.t().contiguous());
        *zeros = box(zero.t().contiguous());
    });
}
