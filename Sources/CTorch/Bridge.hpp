// What the .cpp files share: the tensor handle, and the conversion of exceptions to error codes.
#pragma once

#include <ATen/core/Tensor.h>

#include <exception>
#include <string>
#include <utility>

#include <ATen/core/grad_mode.h>

#include "ctorch.h"

struct CTTensor {
    at::Tensor value;
};

namespace ctorch {

void set_last_error(const char *message);
const char *last_error();

inline CTTensor *box(at::Tensor tensor) { return new CTTensor{std::move(tensor)}; }

inline const at::Tensor &unbox(const CTTensor *tensor) {
    static const at::Tensor none;
    return tensor ? tensor->value : none;
}

inline c10::optional<at::Tensor> optional(const CTTensor *tensor) {
    return tensor ? c10::optional<at::Tensor>(tensor->value) : c10::nullopt;
}

inline at::ScalarType scalar_type(CTDType type) { return static_cast<at::ScalarType>(type); }

inline at::Device device(CTDevice kind, int index) {
    return at::Device(static_cast<at::DeviceType>(kind), kind == CT_CUDA ? static_cast<at::DeviceIndex>(index) : -1);
}

inline at::IntArrayRef shape_of(const int64_t *shape, int rank) { return at::IntArrayRef(shape, static_cast<size_t>(rank)); }

/// Runs `body` and boxes the tensor it returns.
template <typename Body> CTTensor *tensor_or_error(Body body) {
    try {
        return box(body());
    } catch (const c10::Error &error) {
        set_last_error(error.what_without_backtrace());
    } catch (const std::exception &error) {
        set_last_error(error.what());
    } catch (...) {
        set_last_error("an unknown exception");
    }
    return nullptr;
}

/// Runs `body`; 0 when it returned, 1 when it threw.
template <typename Body> int status_or_error(Body body) {
    try {
        body();
        return 0;
    } catch (const c10::Error &error) {
        set_last_error(error.what_without_backtrace());
    } catch (const std::exception &error) {
        set_last_error(error.what());
    } catch (...) {
        set_last_error("an unknown exception");
    }
    return 1;
}

}  // namespace ctorch
