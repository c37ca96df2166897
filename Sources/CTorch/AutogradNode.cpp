// The one instance of libtorch's autograd function, over nodes of any type.
#include "AutogradNode.hpp"

#include <torch/csrc/autograd/custom_function.h>

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

/// A node and which of its inputs are defined: libtorch's function takes defined tensors only.
struct Call : torch::CustomClassHolder {
    std::shared_ptr<ctorch::AutogradNode> node;
    std::vector<int64_t> places;
};

struct Recorded : public Function<Recorded> {
    static variable_list forward(AutogradContext *context, at::TensorList defined, const c10::intrusive_ptr<Call> &call) {
        context->saved_data["call"] = c10::IValue::make_capsule(call);
        ctorch::Tensors inputs;
        inputs.reserve(call->places.size());
        for (const int64_t place : call->places) {
            inputs.push_back(place >= 0 ? defined[static_cast<size_t>(place)] : at::Tensor());
        }
        ctorch::NodeContext wrapped(*context, call->places);
        return call->node->forward(&wrapped, inputs);
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        const auto call = c10::static_intrusive_pointer_cast<Call>(context->saved_data["call"].toCapsule());
        ctorch::NodeContext wrapped(*context, call->places);
        const ctorch::Tensors all = call->node->backward(wrapped, gradients);
        variable_list results;
        for (size_t i = 0; i < call->places.size(); ++i) {
            if (call->places[i] >= 0) results.push_back(i < all.size() ? all[i] : at::Tensor());
        }
        // The call is an argument, too.
        results.emplace_back();
        return results;
    }
};

}  // namespace

namespace ctorch {

void NodeContext::save(Tensors tensors) { context.save_for_backward(std::move(tensors)); }

Tensors NodeContext::saved() const { return context.get_saved_variables(); }

bool NodeContext::needs_gradient(size_t input) const {
    return places[input] >= 0 && context.needs_input_grad(static_cast<size_t>(places[input]));
}

void NodeContext::mark_dirty(const at::Tensor &input) { context.mark_dirty({input}); }

Tensors recorded(std::shared_ptr<AutogradNode> node, const Tensors &inputs) {
    auto call = c10::make_intrusive<Call>();
    call->node = std::move(node);
    variable_list defined;
    for (const at::Tensor &input : inputs) {
        call->places.push_back(input.defined() ? static_cast<int64_t>(defined.size()) : -1);
        if (input.defined()) defined.push_back(input);
    }
    return Recorded::apply(at::TensorList(defined), call);
}

}  // namespace ctorch
