#include "Autocast.hpp"

#include <ATen/autocast_mode.h>

namespace ctorch {

AutocastState AutocastState::current(at::DeviceType device) {
    return {device, at::autocast::is_autocast_enabled(device), at::autocast::get_autocast_dtype(device)};
}

void AutocastState::apply() const {
    at::autocast::set_autocast_enabled(device, is_on);
    at::autocast::set_autocast_dtype(device, type);
}

void enter_autocast() { at::autocast::increment_nesting(); }

void leave_autocast() {
    if (at::autocast::decrement_nesting() == 0) at::autocast::clear_cache();
}

}  // namespace ctorch
