// Model files are memory-mapped; reading a page of a file that was truncated in the meantime raises SIGBUS. The
// handler names that file. It uses only async-signal-safe calls and memory on the stack.
#include "ctorch_faults.h"

#include "Machine.hpp"

#include <csignal>
#include <cstdint>
#include <cstring>
#include <unistd.h>

namespace {

void say(const char *text, size_t count) {
    while (count > 0) {
        ssize_t written = write(STDERR_FILENO, text, count);
        if (written <= 0) return;
        text += written;
        count -= static_cast<size_t>(written);
    }
}

void say(const char *text) { say(text, std::strlen(text)); }

void handle(int signal, siginfo_t *info, void *) {
    char path[4096];
    if (ctorch::find_mapped_file(reinterpret_cast<uintptr_t>(info->si_addr), path, sizeof path)) {
        say("error: ");
        say(path);
        say(" was truncated while in use, or its disk failed; fetch the file again and do not modify it while it is in use\n");
        _exit(1);
    }
    // Another cause: without the handler, the fault recurs and ends the process.
    std::signal(signal, SIG_DFL);
}

}  // namespace

extern "C" void ct_report_truncated_files(void) {
    struct sigaction action;
    std::memset(&action, 0, sizeof action);
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO | SA_RESETHAND;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, nullptr);
}
