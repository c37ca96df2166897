// The compute type of our operations under libtorch's autocast.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include "Autocast.hpp"

namespace ctorch {

/// The compute type of matmuls with tensors like `x`: autocast's if it is enabled for their device.
inline at::ScalarType compute_type(const at::Tensor &x) {
    const at::ScalarType own = x.scalar_type();
    const bool is_narrowable = own == at::kFloat || own == at::kHalf || own == at::kBFloat16;
    const at::DeviceType device = x.device().type();
    if (!is_narrowable || (device != at::kCPU && device != at::kCUDA)) return own;
    const AutocastState state = AutocastState::current(device);
    return state.is_on ? state.type : own;
}

inline bool is_half(at::ScalarType type) { return type == at::kHalf || type == at::kBFloat16; }

/// `x` cast to that type, differentiably; undefined tensors stay undefined.
inline at::Tensor in_type(const at::Tensor &x, at::ScalarType type) {
    return !x.defined() || x.scalar_type() == type || !x.is_floating_point() ? x : x.to(type);
}

/// Disables autocast for the operations inside: an operation of ours casts its arguments once.
struct WithoutAutocast {
    c10::impl::ExcludeDispatchKeyGuard guard{c10::autocast_dispatch_keyset};
};

}  // namespace ctorch
