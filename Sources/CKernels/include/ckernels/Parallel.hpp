// Parallel loops on the thread pool of the program that uses the kernels.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <mutex>

namespace ckernels {

/// The threads that loops run on. The kernels have none of their own, so that there is one pool in the process.
struct ThreadPool {
    /// Number of threads for a loop that starts here: 1 within a parallel region.
    int64_t (*available)();
    /// Runs `work(context, thread, threads)` on up to `threads` threads.
    void (*run)(int64_t threads, void (*work)(void *context, int64_t thread, int64_t threads), void *context);
};

/// Sets the pool, before the first loop. Without one, loops run on the calling thread.
void use_threads(const ThreadPool &);

/// Number of threads for a loop that starts here.
int64_t available_threads();

/// Number of threads for a loop of that many steps, at least `grain` steps each.
int64_t threads_for(int64_t steps, int64_t grain);

/// Runs `work(context, thread, threads)` on up to `threads` threads of the pool.
void on_threads(int64_t threads, void (*work)(void *context, int64_t thread, int64_t threads), void *context);

/// Calls `body(from, to)` over chunks of begin ..< end of at least `grain` steps, one per thread (static scheduling).
template <typename Body> void parallel_for(int64_t begin, int64_t end, int64_t grain, const Body &body) {
    if (begin >= end) return;
    int64_t threads = threads_for(end - begin, grain);
    if (threads <= 1) {
        body(begin, end);
        return;
    }
    struct Loop {
        const Body &body;
        int64_t begin, end;
        std::mutex mutex;
        std::exception_ptr failure;
    } loop{body, begin, end, {}, {}};
    on_threads(
        threads,
        [](void *context, int64_t thread, int64_t count) {
            auto &loop = *static_cast<Loop *>(context);
            int64_t step = (loop.end - loop.begin + count - 1) / count;
            int64_t from = loop.begin + thread * step, to = from + step < loop.end ? from + step : loop.end;
            if (from >= to) return;
            try {
                loop.body(from, to);
            } catch (...) {
                std::lock_guard<std::mutex> lock(loop.mutex);
                if (!loop.failure) loop.failure = std::current_exception();
            }
        },
        &loop);
    if (loop.failure) std::rethrow_exception(loop.failure);
}

/// The same over 0 ..< steps for bandwidth-bound loops, whose threads progress unevenly: each has a static chunk, and
/// the last quarter is handed out in small chunks to whichever thread is free.
template <typename Body> void parallel_with_rest(int64_t steps, int64_t grain, const Body &body) {
    const int64_t threads = threads_for(steps, grain);
    if (threads <= 1) {
        if (steps > 0) body(0, steps);
        return;
    }
    constexpr int64_t parts_of_rest = 8;
    const int64_t own = steps * 3 / (4 * threads), rest = steps - own * threads;
    const int64_t part = (rest + parts_of_rest * threads - 1) / (parts_of_rest * threads);
    std::atomic<int64_t> next{own * threads};
    parallel_for(0, threads, 1, [&](int64_t from, int64_t to) {
        // If fewer threads than requested were started, some process several chunks.
        if (own > 0) body(from * own, to * own);
        for (int64_t start = next.fetch_add(part); start < steps; start = next.fetch_add(part)) {
            body(start, start + part < steps ? start + part : steps);
        }
    });
}

}  // namespace ckernels
