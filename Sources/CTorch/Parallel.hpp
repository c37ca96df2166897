// Loops over libtorch's own threads.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>

namespace ctorch {

/// Runs `work(context, thread, threads)` on up to `threads` of libtorch's threads at once and returns how many there were.
void on_threads(int64_t threads, void (*work)(void *context, int64_t thread, int64_t threads), void *context);

/// Threads that a loop of so many steps is worth, at `grain` steps each.
int64_t threads_for(int64_t steps, int64_t grain);

/// `body(from, to)` over parts of begin ..< end of at least `grain` steps, each on a thread of its own.
///
/// at::parallel_for is a template whose threads come from an OpenMP pragma: in a program that isn't compiled with OpenMP,
/// as this one, it runs everything on one thread.
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
    on_threads(threads, [](void *context, int64_t thread, int64_t count) {
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
    }, &loop);
    if (loop.failure) std::rethrow_exception(loop.failure);
}

}  // namespace ctorch
