// Annotations of the memory log by kernels.
#pragma once

namespace ctorch {

/// Allocations during its lifetime are attributed to the logits.
struct LogitsScope {
    LogitsScope();
    ~LogitsScope();
    LogitsScope(const LogitsScope &) = delete;
    LogitsScope &operator=(const LogitsScope &) = delete;
};

bool memory_is_logged();

}  // namespace ctorch
