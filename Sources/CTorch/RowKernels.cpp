#include "RowKernels.hpp"

#include <optional>

#include "ckernels/RowKernels.hpp"

namespace {

using ckernels::Gate;
using ctorch::elements;
using ctorch::floats;
using ctorch::mutable_elements;
using ctorch::mutable_floats;

/// Calls the body with a value of x's element type.
template <typename Body> void with_type(const at::Tensor &x, Body body) {
    if (x.scalar_type() == at::kBFloat16) return body(ckernels::BFloat());
    body(0.0f);
}

std::optional<Gate> gate_of(CTActivation kind) {
    switch (kind) {
        case CT_RELU: return Gate::relu;
        case CT_GELU_TANH: return Gate::gelu_tanh;
        case CT_SILU: return Gate::silu;
        case CT_GELU: break;
    }
    return std::nullopt;
}

}  // namespace

namespace ctorch {

void rms_norm_rows(const at::Tensor &x, const at::Tensor &weight, float epsilon, at::Tensor &y, at::Tensor &inverse) {
    if (x.is_meta()) return;
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ckernels::rms_norm_rows(elements<Number>(x), floats(weight), epsilon, mutable_elements<Number>(y),
                                mutable_floats(inverse), inverse.numel(), weight.numel());
    });
}

void rms_norm_rows_backward(const at::Tensor &gradient, const at::Tensor &x, const at::Tensor &weight, const at::Tensor &inverse,
                            at::Tensor &to_x) {
    if (x.is_meta()) return;
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ckernels::rms_norm_rows_backward(elements<Number>(gradient), elements<Number>(x), floats(weight), floats(inverse),
                                         mutable_elements<Number>(to_x), inverse.numel(), weight.numel());
    });
}

bool has_gate_kernel(CTActivation kind) { return gate_of(kind).has_value(); }

void gate_rows(CTActivation kind, const at::Tensor &gate, const at::Tensor &up, at::Tensor &y) {
    if (gate.is_meta()) return;
    with_type(gate, [&](auto number) {
        using Number = decltype(number);
        ckernels::gate_rows(gate_of(kind).value(), elements<Number>(gate), elements<Number>(up), mutable_elements<Number>(y),
                            gate.numel());
    });
}

void gate_rows_backward(CTActivation kind, const at::Tensor &gradient, const at::Tensor &gate, const at::Tensor &up,
                        at::Tensor &to_gate, at::Tensor &to_up) {
    if (gate.is_meta()) return;
    with_type(gate, [&](auto number) {
        using Number = decltype(number);
        ckernels::gate_rows_backward(gate_of(kind).value(), elements<Number>(gradient), elements<Number>(gate),
                                     elements<Number>(up), mutable_elements<Number>(to_gate), mutable_elements<Number>(to_up),
                                     gate.numel());
    });
}

void rotate_rows(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, float direction, bool interleaved,
                 at::Tensor &y) {
    if (x.is_meta()) return;
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ckernels::rotate_rows(elements<Number>(x), elements<Number>(cosines), elements<Number>(sines), direction,
                              mutable_elements<Number>(y), x.size(0), x.size(1), x.size(2), cosines.size(1), interleaved);
    });
}

}  // namespace ctorch
