// Matmuls with one expert's matrix, whichever way the matrices of all experts are stored.
#include "ExpertStack.hpp"

#include <ATen/ops/empty.h>

#include "MatrixProduct.hpp"

namespace ctorch {

at::Tensor ExpertStack::matrix(int64_t expert) const {
    at::Tensor matrix = dense.select(0, expert);
    return is_transposed ? matrix.t() : matrix;
}

GroupMatrix ExpertStack::group(int64_t expert) const {
    GroupMatrix own = *groups;
    own.packed = own.packed.select(0, expert);
    own.scales = own.scales.select(0, expert);
    own.zeros = own.zeros.select(0, expert);
    if (own.order.defined()) own.order = own.order.select(0, expert);
    return own;
}

/// The kernels for groups compute in floats, whatever the type of x.
template <typename Multiply> static void in_floats(const at::Tensor &x, at::Tensor &y, Multiply multiply) {
    const at::ScalarType type = x.scalar_type();
    if (!x.is_cpu() || type == at::kFloat || type == at::kDouble) return multiply(x, y);
    at::Tensor wide = at::empty(y.sizes(), y.options().dtype(at::kFloat));
    multiply(x.to(at::kFloat), wide);
    y.copy_(wide);
}

void ExpertStack::multiply(int64_t expert, const at::Tensor &x, at::Tensor &y) const {
    if (groups) {
        in_floats(x, y, [&](const at::Tensor &x, at::Tensor &y) { ctorch::multiply(group(expert), x, y); });
    } else if (stored) {
        stored->multiply_rows(x, expert * outputs, outputs, y);
    } else {
        set_product(y, x, matrix(expert).t());
    }
}

void ExpertStack::multiply_transposed(int64_t expert, const at::Tensor &gradient, at::Tensor &result) const {
    if (groups) {
        in_floats(gradient, result,
                  [&](const at::Tensor &x, at::Tensor &y) { ctorch::multiply_transposed(group(expert), x, y); });
    } else if (stored) {
        stored->multiply_rows_transposed(gradient, expert * outputs, outputs, result);
    } else {
        set_product(result, gradient, matrix(expert));
    }
}

void ExpertStack::set_gradient(const at::Tensor &gradient, const at::Tensor &x, at::Tensor result) const {
    if (is_transposed) {
        set_product(result, x.t(), gradient);
    } else {
        set_product(result, gradient.t(), x);
    }
}

std::vector<at::Tensor> ExpertStack::parts() const {
    if (groups) return {groups->packed, groups->scales, groups->zeros, groups->order};
    if (stored) return {stored->codes, stored->scales, stored->table, stored->nested_scales, stored->nested_table};
    return {dense};
}

ExpertStack ExpertStack::with_parts(const std::vector<at::Tensor> &parts) const {
    ExpertStack copy = *this;
    if (copy.groups) {
        copy.groups->packed = parts[0];
        copy.groups->scales = parts[1];
        copy.groups->zeros = parts[2];
        copy.groups->order = parts[3];
    } else if (copy.stored) {
        copy.stored->codes = parts[0];
        copy.stored->scales = parts[1];
        copy.stored->table = parts[2];
        copy.stored->nested_scales = parts[3];
        copy.stored->nested_table = parts[4];
    } else {
        copy.dense = parts[0];
    }
    return copy;
}

ExpertStack expert_stack(const CTExpertStack *given) {
    ExpertStack stack;
    stack.experts = given->experts;
    stack.is_transposed = given->is_transposed;
    TORCH_CHECK(stack.experts > 0, "no experts");
    if (given->dense) {
        stack.dense = unbox(given->dense);
        TORCH_CHECK(stack.dense.dim() == 3 && stack.dense.size(0) == stack.experts && stack.dense.numel() > 0,
                    "experts of shape ", stack.dense.sizes(), ", not [", stack.experts, ", outputs, inputs]");
        stack.outputs = stack.dense.size(stack.is_transposed ? 2 : 1);
        stack.inputs = stack.dense.size(stack.is_transposed ? 1 : 2);
        return stack;
    }
    TORCH_CHECK(!stack.is_transposed, "quantized experts can't be transposed");
    if (given->groups.packed) {
        const CTGroupMatrix &own = given->groups;
        const at::Tensor packed = unbox(own.packed), scales = unbox(own.scales), zeros = unbox(own.zeros),
                         order = unbox(own.order);
        for (const at::Tensor &part : {packed, scales, zeros}) {
            TORCH_CHECK(part.dim() == 3 && part.size(0) == stack.experts, "a part of shape ", part.sizes(), " for ",
                        stack.experts, " experts");
        }
        TORCH_CHECK(!order.defined() || (order.dim() == 2 && order.size(0) == stack.experts), "group indices of shape ",
                    order.sizes(), " for ", stack.experts, " experts");
        // The shapes of all are those of the first; their group indices are checked one by one.
        for (int64_t expert = 0; expert < (order.defined() ? stack.experts : 1); ++expert) {
            const GroupMatrix first =
                group_matrix(packed.select(0, expert), scales.select(0, expert), zeros.select(0, expert),
                             order.defined() ? order.select(0, expert) : at::Tensor(), own.bits, own.group_size, own.zero_offset);
            stack.outputs = first.outputs();
            stack.inputs = first.inputs();
        }
        const auto read = [](const at::Tensor &part) {
            return part.scalar_type() == at::kBFloat16 ? part.to(at::kFloat).contiguous() : part.contiguous();
        };
        stack.groups =
            GroupMatrix{packed.contiguous(), read(scales),   read(zeros), order.defined() ? order.contiguous() : order, own.bits,
                        own.group_size,      own.zero_offset};
        return stack;
    }
    stack.stored = stored_matrix(&given->stored);
    const int64_t rows = stack.stored->outputs;
    stack.inputs = stack.stored->inputs;
    TORCH_CHECK(rows % stack.experts == 0, rows, " rows for ", stack.experts, " experts");
    stack.outputs = rows / stack.experts;
    return stack;
}

}  // namespace ctorch
