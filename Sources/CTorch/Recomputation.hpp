// Parts of a forward pass that are computed again in the backward pass.
#pragma once

#include <ATen/core/Tensor.h>

namespace ctorch {

/// Whether the part that is being computed again on this thread has given all that the backward pass asks for: what
/// follows in it needs shapes alone.
bool recomputation_is_complete();

/// The shape and type of a projection's output for x, without its numbers.
at::Tensor unasked_product(const at::Tensor &x, int64_t outputs);

/// Inside, nodes keep what they save: tensors of the model itself, which live on anyway.
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
