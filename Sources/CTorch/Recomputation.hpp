// Activation checkpointing.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// Whether the recomputed segment on this thread has saved all tensors that the backward pass needs: the operations
/// that follow in it need to return shapes only.
bool recomputation_is_complete();

/// A projection's output for x, uninitialized: its shape and type only.
at::Tensor unasked_product(const at::Tensor &x, int64_t outputs);

/// Inside, nodes save tensors without hooks: tensors of the model itself, which live on anyway.
class KeepsSaved {
public:
    explicit KeepsSaved(bool keeps);
    ~KeepsSaved();
    KeepsSaved(const KeepsSaved &) = delete;
    KeepsSaved &operator=(const KeepsSaved &) = delete;

private:
    bool before;
};

}  // namespace ctorch
