#include "DynamicMap.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/tensor.h>

#include <array>
#include <vector>

#include "Elements.hpp"

namespace ctorch {

at::Tensor dynamic_map(bool is_signed) {
    std::vector<at::Tensor> parts;
    const std::array<double, 7> decades = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1};
    for (size_t i = 0; i < decades.size(); ++i) {
        at::Tensor bounds = at::linspace(0.1, 1, (is_signed ? 1 << i : 2 << i) + 1, at::kFloat);
        at::Tensor means = (bounds.slice(0, 0, -1) + bounds.slice(0, 1)) / 2.0;
        parts.push_back(means * decades[i]);
        if (is_signed) parts.push_back(means * -decades[i]);
    }
    parts.push_back(at::tensor({0.0f, 1.0f}));
    return std::get<0>(at::cat(parts).sort());
}

const ckernels::DynamicCode &dynamic_code(bool is_signed) {
    static const ckernels::DynamicCode with_signs(floats(dynamic_map(true))), without(floats(dynamic_map(false)));
    return is_signed ? with_signs : without;
}

}  // namespace ctorch
