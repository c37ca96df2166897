#pragma once

#include <cstddef>
#include <cstdint>

namespace ctorch {
/// Finds the mapped file that `address` belongs to and copies its path, or as much of it as fits. Async-signal-safe.
bool find_mapped_file(uintptr_t address, char *path, size_t room);
}  // namespace ctorch
