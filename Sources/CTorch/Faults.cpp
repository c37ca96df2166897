// Model files are mapped, and a file that becomes shorter while it is in use raises SIGBUS where it is read next. The handler
// says which file that was. Everything in it is async-signal-safe: system calls and memory on the stack.
#include "ctorch_faults.h"

#include <csignal>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
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

/// A line of /proc/self/maps: `start-end permissions offset device inode path`, numbers hexadecimal.
struct Mapping {
    uintptr_t start = 0, end = 0;
    const char *path = nullptr;

    explicit Mapping(const char *line) {
        start = number(line);
        if (*line == '-') end = number(++line);
        for (int fields = 0; fields < 4; ++fields) {
            while (*line == ' ') ++line;
            while (*line != ' ' && *line != 0) ++line;
        }
        while (*line == ' ') ++line;
        if (*line == '/') path = line;
    }

private:
    static uintptr_t number(const char *&text) {
        uintptr_t value = 0;
        for (;; ++text) {
            const char c = *text;
            if (c >= '0' && c <= '9') value = value * 16 + static_cast<uintptr_t>(c - '0');
            else if (c >= 'a' && c <= 'f') value = value * 16 + static_cast<uintptr_t>(c - 'a' + 10);
            else return value;
        }
    }
};

/// Finds the mapped file that `address` belongs to and copies its path, or as much of it as fits.
bool find_path(uintptr_t address, char *path, size_t room) {
    const int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (maps < 0) return false;
    char line[4352], part[1024];
    size_t length = 0;
    bool is_found = false;
    for (ssize_t count; !is_found && (count = read(maps, part, sizeof part)) > 0;) {
        for (ssize_t i = 0; i < count && !is_found; ++i) {
            if (part[i] != '\n') {
                if (length + 1 < sizeof line) line[length++] = part[i];
                continue;
            }
            line[length] = 0;
            length = 0;
            const Mapping mapping(line);
            if (mapping.path == nullptr || address < mapping.start || address >= mapping.end) continue;
            std::strncpy(path, mapping.path, room - 1);
            path[room - 1] = 0;
            is_found = true;
        }
    }
    close(maps);
    return is_found;
}

void handle(int signal, siginfo_t *info, void *) {
    char path[4096];
    if (find_path(reinterpret_cast<uintptr_t>(info->si_addr), path, sizeof path)) {
        say("error: ");
        say(path);
        say(" became shorter while it was in use, or its disk failed; fetch the file again and leave it in place meanwhile\n");
        _exit(1);
    }
    // Another cause: the fault happens again, as without a handler.
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
