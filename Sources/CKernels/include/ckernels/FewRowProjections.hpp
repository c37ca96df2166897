// Fused projections of the few rows of a decode step, with biases and LoRA branches.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "ckernels/GroupWeights.hpp"
#include "ckernels/StoredWeights.hpp"

namespace ckernels {

/// y = x Wᵀ + bias + scale · x aᵀ bᵀ with x [rows, inputs] and y [rows, outputs].
struct FewRowProjection {
    /// W in fp32 [outputs, inputs] and its row stride, unless it is `stored` or a `group` matrix.
    const float *weight = nullptr;
    int64_t stride = 0;
    std::optional<StoredWeights> stored = std::nullopt;
    std::optional<GroupWeights> group = std::nullopt;
    /// [outputs], or NULL.
    const float *bias = nullptr;
    /// The LoRA branch, [rank, inputs] and [outputs, rank]; NULL without one.
    const float *a = nullptr, *b = nullptr;
    int64_t rank = 0;
    float scale = 1;
    float *y = nullptr;
    int64_t outputs = 0;
};

/// Computes all of them. The threads synchronize once, and each adds the LoRA delta to the outputs that it has just
/// written. Stored matrices take at most `few_stored_rows` rows, group-wise quantized ones `few_group_rows`.
void few_row_projections(const float *x, int64_t rows, int64_t inputs, const std::vector<FewRowProjection> &);

}  // namespace ckernels
