// Matmuls with one expert's matrix, whichever way the matrices of all experts are stored.
#include "ExpertStack.hpp"

#include "MatrixProduct.hpp"

namespace ctorch {

at::Tensor ExpertStack::matrix(int64_t expert) const {
    at::Tensor matrix = dense.select(0, expert);
    return is_transposed ? matrix.t() : matrix;
}

void ExpertStack::multiply(int64_t expert, const at::Tensor &x, at::Tensor &y) const {
    if (stored) {
        stored->multiply_rows(x, expert * outputs, outputs, y);
    } else {
        set_product(y, x, matrix(expert).t());
    }
}

void ExpertStack::multiply_transposed(int64_t expert, const at::Tensor &gradient, at::Tensor &result) const {
    if (stored) {
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
    if (stored) return {stored->codes, stored->scales, stored->table, stored->nested_scales, stored->nested_table};
    return {dense};
}

ExpertStack ExpertStack::with_parts(const std::vector<at::Tensor> &parts) const {
    ExpertStack copy = *this;
    if (copy.stored) {
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
    stack.stored = stored_matrix(&given->stored);
    const int64_t rows = stack.stored->outputs;
    stack.inputs = stack.stored->inputs;
    TORCH_CHECK(rows % stack.experts == 0, rows, " rows for ", stack.experts, " experts");
    stack.outputs = rows / stack.experts;
    return stack;
}

}  // namespace ctorch
