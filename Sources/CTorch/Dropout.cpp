#include "Dropout.hpp"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>

#include "Elements.hpp"
#include "ckernels/DropoutMask.hpp"

using ckernels::DropoutMask;

namespace {

void drop(const at::Tensor &x, at::Tensor &y, double probability, uint64_t seed) {
    const DropoutMask mask(probability, seed);
    const auto apply = [&](auto number) {
        using Number = decltype(number);
        ckernels::drop(ctorch::elements<Number>(x), ctorch::mutable_elements<Number>(y), x.numel(), mask);
    };
    if (x.scalar_type() == at::kFloat) return apply(0.0f);
    if (x.scalar_type() == at::kBFloat16) return apply(ckernels::BFloat());
    apply(0.0);
}

bool has_kernel(const at::Tensor &x) {
    return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble || x.scalar_type() == at::kBFloat16);
}

/// For devices and types without a kernel: the GPU's generator, reseeded for each mask; otherwise the factors are
/// computed on the CPU and copied.
at::Tensor factors(const at::Tensor &x, double probability, uint64_t seed) {
    if (x.is_cuda()) {
        at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
        generator.set_current_seed(seed);
        return at::empty_like(x).bernoulli_(1 - probability, generator).mul_(DropoutMask(probability, seed).factor);
    }
    at::Tensor ones = at::ones(x.sizes(), at::dtype(at::kFloat));
    drop(ones, ones, probability, seed);
    return ones.to(x.device(), x.scalar_type());
}

}  // namespace

namespace ctorch {

at::Tensor dropped(const at::Tensor &x, double probability, uint64_t seed) {
    if (x.is_meta()) return at::empty_like(x);
    if (!has_kernel(x)) return x * factors(x, probability, seed);
    at::Tensor source = x.contiguous();
    at::Tensor result = at::empty_like(source);
    drop(source, result, probability, seed);
    return result;
}

void drop_in_place(at::Tensor &x, double probability, uint64_t seed) {
    if (has_kernel(x)) {
        drop(x, x, probability, seed);
    } else if (!x.is_meta()) {
        x.mul_(factors(x, probability, seed));
    }
}

}  // namespace ctorch
