#include "Parallel.hpp"

#include <ATen/Parallel.h>

#include <algorithm>

#include "Contention.hpp"

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

void run(void *pointer) {
    auto &task = *static_cast<Task *>(pointer);
    task.work(task.context, task.number(), task.count());
}

}  // namespace

namespace ctorch {

int64_t threads_for(int64_t steps, int64_t grain) {
    if (!runtime().is_there() || at::in_parallel_region()) return 1;
    int64_t most = (steps + std::max<int64_t>(grain, 1) - 1) / std::max<int64_t>(grain, 1);
    return std::min<int64_t>(at::get_num_threads(), most);
}

void on_threads(int64_t threads, void (*work)(void *, int64_t, int64_t), void *context) {
    Task task{work, context, runtime().number, runtime().count};
    runtime().parallel(run, &task, static_cast<unsigned>(threads), 0);
}

}  // namespace ctorch
