// libtorch's autocast. Its header includes all operators, so Autocast.cpp alone includes it.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

namespace ctorch {

/// Autocast's state on this thread for one kind of device.
struct AutocastState {
    at::DeviceType device;
    bool is_on;
    at::ScalarType type;

    static AutocastState current(at::DeviceType device);
    void apply() const;
};

/// Enters a scope of autocast. Weights that are downcast are cached until the outermost scope ends.
void enter_autocast();
void leave_autocast();

}  // namespace ctorch
