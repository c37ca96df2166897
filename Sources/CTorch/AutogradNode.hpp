// Autograd nodes of our own. libtorch's template for them takes longer to compile than most files here: only
// AutogradNode.cpp includes it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace torch::autograd {
struct AutogradContext;
}

namespace ctorch {

using Tensors = std::vector<at::Tensor>;

/// What the forward pass of a node leaves for its backward pass.
class NodeContext {
public:
    /// - Parameter places: the index of each input among the defined ones, −1 for an undefined one.
    NodeContext(torch::autograd::AutogradContext &context, const std::vector<int64_t> &places)
        : context(context), places(places) {}

    void save(Tensors tensors);
    Tensors saved() const;
    /// In the backward pass: whether this input needs a gradient.
    bool needs_gradient(size_t input) const;
    /// Declares that the forward pass changed this input in place and returns it.
    void mark_dirty(const at::Tensor &input);

private:
    torch::autograd::AutogradContext &context;
    const std::vector<int64_t> &places;
};

/// A node: its settings are members, its differentiable inputs are tensors, some of which may be undefined.
class AutogradNode {
public:
    virtual ~AutogradNode() = default;
    /// The outputs; `context` is NULL where no gradient is recorded.
    virtual Tensors forward(NodeContext *context, const Tensors &inputs) = 0;
    /// Given the gradient w.r.t. each output, the gradient w.r.t. each input, undefined where none is needed.
    virtual Tensors backward(NodeContext &context, const Tensors &gradients) = 0;
};

/// The node's outputs, recorded for the backward pass.
Tensors recorded(std::shared_ptr<AutogradNode> node, const Tensors &inputs);

/// The first output of a node. Where no gradient is recorded, its forward function is called directly, without a context:
/// creating an autograd node costs microseconds, which dominate in a decode step.
template <typename Node> at::Tensor applied(Node node, const Tensors &inputs) {
    if (at::GradMode::is_enabled()) return recorded(std::make_shared<Node>(std::move(node)), inputs)[0];
    return node.forward(nullptr, inputs)[0];
}

}  // namespace ctorch
