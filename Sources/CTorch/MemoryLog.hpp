// What kernels tell the log of memory.
#pragma once

namespace ctorch {

/// What is made while it lives belongs to the logits.
struct LogitsScope {
    LogitsScope();
    ~LogitsScope();
    LogitsScope(const LogitsScope &) = delete;
    LogitsScope &operator=(const LogitsScope &) = delete;
};

bool memory_is_logged();

}  // namespace ctorch
