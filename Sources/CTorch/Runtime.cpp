// Errors, threads, memory, gradient mode.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/api/include/torch/version.h>

#include "Bridge.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace {
thread_local std::string last_error;
}

namespace ctorch {
void set_last_error(const char *message) { last_error = message; }
}  // namespace ctorch

struct CTGradMode {
    explicit CTGradMode(bool enabled) : guard(enabled) {}
    c10::AutoGradMode guard;
};

extern "C" {

const char *ct_last_error(void) { return last_error.c_str(); }

const char *ct_version(void) { return TORCH_VERSION; }

void ct_set_threads(int threads) {
    if (threads > 0) at::set_num_threads(threads);
}

int ct_threads(void) { return at::get_num_threads(); }

bool ct_cuda_available(void) {
    // The program links the CPU part alone, so that it starts fast and runs where there is nothing else. The CUDA
    // part registers itself when it is loaded; it lies beside the libraries that were linked, where there is one.
#if defined(__linux__)
    static bool is_loaded = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr;
    if (!is_loaded) return false;
#endif
    return at::globalContext().hasCUDA();
}
bool ct_mps_available(void) { return at::globalContext().hasMPS(); }

void ct_keep_freed_memory(void) {
#if defined(__GLIBC__)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    // One arena: the autograd thread frees what the training thread allocated, and a second arena would
    // hold its own copy of the high-water mark.
    mallopt(M_ARENA_MAX, 1);
#endif
}

void ct_trim_memory(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

CTGradMode *ct_grad_mode_enter(bool enabled) { return new CTGradMode(enabled); }
void ct_grad_mode_leave(CTGradMode *mode) { delete mode; }

}
