#pragma once

#include <cstddef>
#include <cstdint>

namespace ctorch {
/// Finds the mapped file that contains `address` and copies its path, truncated to fit. Async-signal-safe.
bool find_mapped_file(uintptr_t address, char *path, size_t room);
}  // namespace ctorch
