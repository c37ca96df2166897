// System information from /proc on Linux and system calls on macOS: process memory, processor name, mapped files.
#include "Machine.hpp"

#include "ctorch.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#ifdef __APPLE__
#include <libproc.h>
#include <mach/mach.h>
#include <sys/sysctl.h>
#include <unistd.h>
#else
#include <cstdio>
#include <cstdlib>
#include <fcntl.h>
#include <unistd.h>
#endif

#ifdef __APPLE__

extern "C" int ct_process_memory(int64_t *now, int64_t *peak) {
    task_vm_info_data_t info;
    mach_msg_type_number_t count = TASK_VM_INFO_COUNT;
    if (task_info(mach_task_self(), TASK_VM_INFO, reinterpret_cast<task_info_t>(&info), &count) != KERN_SUCCESS) return 1;
    *now = static_cast<int64_t>(info.resident_size);
    *peak = static_cast<int64_t>(info.resident_size_peak);
    return 0;
}

extern "C" int ct_processor_name(char *name, size_t room) {
    return sysctlbyname("machdep.cpu.brand_string", name, &room, nullptr, 0) == 0 ? 0 : 1;
}

bool ctorch::find_mapped_file(uintptr_t address, char *path, size_t room) {
    return proc_regionfilename(getpid(), address, path, static_cast<uint32_t>(room)) > 0;
}

#else

namespace {

/// Calls `use` with each line of a file, until it returns false.
template <typename Use> bool read_lines(const char *file, Use use) {
    std::FILE *lines = std::fopen(file, "re");
    if (lines == nullptr) return false;
    char line[512];
    while (std::fgets(line, sizeof line, lines) != nullptr && use(line)) {
    }
    std::fclose(lines);
    return true;
}

/// Parses the number after `field` if `line` begins with it.
bool read_kibibytes(const char *line, const char *field, int64_t *bytes) {
    const size_t length = std::strlen(field);
    if (std::strncmp(line, field, length) != 0) return false;
    *bytes = std::strtoll(line + length, nullptr, 10) * 1024;
    return true;
}

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

}  // namespace

extern "C" int ct_process_memory(int64_t *now, int64_t *peak) {
    int found = 0;
    read_lines("/proc/self/status", [&](const char *line) {
        found += read_kibibytes(line, "VmRSS:", now) || read_kibibytes(line, "VmHWM:", peak) ? 1 : 0;
        return found < 2;
    });
    return found == 2 ? 0 : 1;
}

extern "C" int ct_processor_name(char *name, size_t room) {
    if (room == 0) return 1;
    name[0] = 0;
    read_lines("/proc/cpuinfo", [&](char *line) {
        if (std::strncmp(line, "model name", 10) != 0) return true;
        const char *value = std::strchr(line, ':');
        if (value == nullptr) return true;
        value += 1 + std::strspn(value + 1, " ");
        const size_t length = std::min(std::strcspn(value, "\n"), room - 1);
        std::memcpy(name, value, length);
        name[length] = 0;
        return false;
    });
    return name[0] != 0 ? 0 : 1;
}

bool ctorch::find_mapped_file(uintptr_t address, char *path, size_t room) {
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

#endif
