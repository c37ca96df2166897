// Optimizer steps over lists of parameters, through libtorch's fused kernels.
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>

#include "Bridge.hpp"

using namespace ctorch;

namespace {

std::vector<at::Tensor> list(CTTensor *const *tensors, int count) {
    std::vector<at::Tensor> result;
    result.reserve(static_cast<size_t>(count));
    for (int i = 0; i < count; ++i) result.push_back(unbox(tensors[i]));
    return result;
}

std::vector<at::Tensor> gradients_of(const std::vector<at::Tensor> &parameters) {
    std::vector<at::Tensor> result;
    result.reserve(parameters.size());
    for (const at::Tensor &parameter : parameters) {
        TORCH_CHECK(parameter.grad().defined(), "a parameter has no gradient");
        result.push_back(parameter.grad());
    }
    return result;
}

}  // namespace

extern "C" {

int ct_clip_gradients(CTTensor *const *parameters, int count, double largest_norm, double *norm) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        std::vector<at::Tensor> gradients;
        for (const at::Tensor &parameter : list(parameters, count)) {
            if (parameter.grad().defined()) gradients.push_back(parameter.grad());
        }
        if (gradients.empty()) {
            *norm = 0;
            return;
        }
        at::Tensor total = at::stack(at::_foreach_norm(gradients, 2)).norm();
        *norm = total.item().toDouble();
        // The 1e-6 is from PyTorch's clip_grad_norm_, so that the same run gives the same values.
        double factor = largest_norm / (*norm + 1e-6);
        if (largest_norm > 0 && factor < 1) at::_foreach_mul_(gradients, factor);
    });
}

int ct_adamw_step(CTTensor *const *parameters, CTTensor *const *first_moments, CTTensor *const *second_moments, int count,
                  int64_t step, double rate, double beta1, double beta2, double weight_decay, double epsilon) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        if (count == 0) return;
        std::vector<at::Tensor> values = list(parameters, count);
        // The kernel reads the step from the state's step tensors and expects them to be advanced already.
        std::vector<at::Tensor> steps(values.size(),
                                      at::full({}, static_cast<double>(step), at::dtype(at::kFloat).device(values[0].device())));
        at::_fused_adamw_(values, gradients_of(values), list(first_moments, count), list(second_moments, count), {}, steps, rate,
                          beta1, beta2, weight_decay, epsilon, false, false);
    });
}

CTTensor *ct_orthogonalized(const CTTensor *x, int iterations) {
    return tensor_or_error([&]() -> at::Tensor {
        at::NoGradGuard guard;
        // The coefficients that maximize the slope at 0, and the smallest norm, as in torch.optim.Muon.
        constexpr double a = 3.4445, b = -4.7750, c = 2.0315, smallest = 1e-7;
        const at::Tensor &given = unbox(x);
        TORCH_CHECK(given.dim() == 2, "a matrix is required, not ", given.sizes());
        const bool is_tall = given.size(0) > given.size(1);
        at::Tensor result = given.to(at::kBFloat16, false, true);
        if (is_tall) result = result.t();
        result.div_(result.norm().clamp_min(smallest));
        for (int i = 0; i < iterations; ++i) {
            at::Tensor gram = at::mm(result, result.t());
            at::Tensor polynomial = at::addmm(gram, gram, gram, b, c);
            result = at::addmm(result, polynomial, result, a, 1);
        }
        return is_tall ? result.t() : result;
    });
}
}
