// The matrices of all experts of a layer as one tensor, dense or quantized.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "Bridge.hpp"
#include "GroupQuantized.hpp"
#include "Quantized.hpp"

namespace ctorch {

/// W_e [outputs, inputs] of each expert e: dense, or one below the other as a quantized matrix [experts · outputs, inputs].
struct ExpertStack {
    int64_t experts = 0, outputs = 0, inputs = 0;
    /// [experts, outputs, inputs], or [experts, inputs, outputs] if it is transposed; undefined if it is quantized.
    at::Tensor dense;
    bool is_transposed = false;
    std::optional<StoredMatrix> stored;
    /// Group-wise quantized matrices, whose parts have a leading dimension of experts.
    std::optional<GroupMatrix> groups;

    /// y = x W_eᵀ for the rows x [rows, inputs] of one expert; y has contiguous rows.
    void multiply(int64_t expert, const at::Tensor &x, at::Tensor &y) const;
    /// result = g W_e for g [rows, outputs].
    void multiply_transposed(int64_t expert, const at::Tensor &gradient, at::Tensor &result) const;
    /// gᵀ x, the gradient w.r.t. a dense W_e, into `result` with the layout of `dense`.
    void set_gradient(const at::Tensor &gradient, const at::Tensor &x, at::Tensor result) const;

    /// The tensors that the kernels read, for a node to save, and the same stack with those tensors.
    std::vector<at::Tensor> parts() const;
    ExpertStack with_parts(const std::vector<at::Tensor> &parts) const;

private:
    /// W_e [outputs, inputs], a view.
    at::Tensor matrix(int64_t expert) const;
    /// The group-wise quantized W_e.
    GroupMatrix group(int64_t expert) const;
};

/// The stack with its parts checked and contiguous.
ExpertStack expert_stack(const CTExpertStack *);

}  // namespace ctorch
