// Rates and decays of recurrences as one autograd node, which saves its inputs alone.
#include "ckernels/RecurrenceGates.hpp"

#include <ATen/ops/empty_like.h>

#include <limits>
#include <memory>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "Precision.hpp"

using namespace ctorch;

namespace {

class Gates : public AutogradNode {
public:
    Gates(double lower, double upper) : lower(lower), upper(upper) {}

    /// Of decays, factors, shifts and rates, which may be undefined. Returns β and g.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        at::Tensor rates = at::empty_like(inputs[0]), decays = at::empty_like(inputs[0]);
        if (context) context->save(inputs);
        if (!rates.is_meta()) ckernels::recurrence_gates(view(inputs), mutable_floats(rates), mutable_floats(decays));
        return {rates, decays};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        Tensors to = {at::empty_like(saved[0])};
        for (size_t i = 1; i < 4; ++i) to.push_back(context.needs_gradient(i) ? at::empty_like(saved[i]) : at::Tensor());
        if (to[0].is_meta()) return to;
        const at::Tensor by_rate = gradients[0].contiguous(), by_decay = gradients[1].contiguous();
        const auto floats_of = [&](size_t i) { return to[i].defined() ? mutable_floats(to[i]) : nullptr; };
        ckernels::recurrence_gates_backward(view(saved), floats(by_rate), floats(by_decay), floats_of(3), floats_of(0),
                                            floats_of(1), floats_of(2));
        return to;
    }

private:
    double lower, upper;

    ckernels::RecurrenceGates view(const Tensors &inputs) const {
        const at::Tensor &decays = inputs[0], &rates = inputs[3];
        const int64_t heads = inputs[1].numel();
        return {decays.numel() / heads,
                heads,
                rates.defined() ? floats(rates) : nullptr,
                floats(decays),
                floats(inputs[1]),
                floats(inputs[2]),
                static_cast<float>(lower),
                static_cast<float>(upper)};
    }
};

}  // namespace

extern "C" int ct_recurrence_gates(const CTTensor *rates, const CTTensor *decays, const CTTensor *factors, const CTTensor *shifts,
                                   double lower, double upper, CTTensor **results) {
    return status_or_error([&] {
        Tensors inputs = {unbox(decays), unbox(factors), unbox(shifts), unbox(rates)};
        for (at::Tensor &input : inputs) {
            if (input.defined()) input = in_type(input, at::kFloat).contiguous();
            TORCH_CHECK(!input.defined() || is_row_major(input), "gates of a recurrence on ", input.device());
        }
        const int64_t heads = inputs[1].numel();
        TORCH_CHECK(heads > 0 && inputs[2].numel() == heads && inputs[0].numel() % heads == 0 &&
                        (!inputs[3].defined() || inputs[3].sizes() == inputs[0].sizes()),
                    "shape mismatch: gates of a recurrence from ", inputs[0].sizes(), " and ", inputs[1].sizes());
        Gates node(lower, upper);
        const Tensors outputs =
            at::GradMode::is_enabled() ? recorded(std::make_shared<Gates>(node), inputs) : node.forward(nullptr, inputs);
        for (size_t i = 0; i < outputs.size(); ++i) results[i] = box(outputs[i]);
    });
}
