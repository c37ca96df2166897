// What the kernels need of libtorch: its threads, and the folder of its libraries.
#include <ATen/Parallel.h>
#include <torch/headeronly/version.h>

#include "Contention.hpp"
#include "ckernels/Blas.hpp"
#include "ckernels/Parallel.hpp"
#include "ckernels/StoredProduct.hpp"
#include "ctorch.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace {

struct Task {
    void (*work)(void *, int64_t, int64_t);
    void *context;
    int (*number)();
    int (*count)();
};

/// The entry points of libtorch's OpenMP; all NULL with another runtime than libgomp.
///
/// at::parallel_for is a template whose threads come from an OpenMP pragma: in a program compiled without OpenMP, as
/// this one, it runs everything on one thread.
struct Runtime {
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned) = nullptr;
    int (*number)() = nullptr;
    int (*count)() = nullptr;
    bool is_there() const { return parallel != nullptr && number != nullptr && count != nullptr; }
};

const Runtime &runtime() {
    static const Runtime found = [] {
        Runtime result;
#if defined(__linux__)
        // libgomp was loaded with libtorch: its thread pool is the one that libtorch's kernels use.
        result.parallel = reinterpret_cast<decltype(result.parallel)>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        result.number = reinterpret_cast<decltype(result.number)>(dlsym(RTLD_DEFAULT, "omp_get_thread_num"));
        result.count = reinterpret_cast<decltype(result.count)>(dlsym(RTLD_DEFAULT, "omp_get_num_threads"));
        if (result.is_there()) ctorch::watch_contention();
#endif
        return result;
    }();
    return found;
}

int64_t available() { return runtime().is_there() && !at::in_parallel_region() ? at::get_num_threads() : 1; }

void run(int64_t threads, void (*work)(void *, int64_t, int64_t), void *context) {
    Task task{work, context, runtime().number, runtime().count};
    const auto start = [](void *pointer) {
        auto &task = *static_cast<Task *>(pointer);
        task.work(task.context, task.number(), task.count());
    };
    runtime().parallel(start, &task, static_cast<unsigned>(threads), 0);
}

/// Before `main`, so that no call of a kernel has to check for it.
[[maybe_unused]] const bool is_set_up = [] {
    ckernels::use_threads({available, run});
    ckernels::look_for_blas_beside(reinterpret_cast<const void *>(&at::get_num_threads));
    return true;
}();

}  // namespace

extern "C" {

void ct_set_threads(int threads) {
    if (threads > 0) at::set_num_threads(threads);
}

int ct_threads(void) { return at::get_num_threads(); }

const char *ct_torch_version(void) { return TORCH_VERSION; }

const char *ct_blas_name(void) { return ckernels::blas_name(); }

void ct_allow_other_blas(bool allowed) { ckernels::allow_blas(allowed); }

void ct_use_wide_vectors(bool allowed) { ckernels::use_wide_vectors(allowed); }
}
