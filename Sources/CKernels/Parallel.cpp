#include "ckernels/Parallel.hpp"

#include <algorithm>

namespace {

constinit ckernels::ThreadPool pool{nullptr, nullptr};

}  // namespace

namespace ckernels {

void use_threads(const ThreadPool &threads) { pool = threads; }

int64_t available_threads() { return pool.available != nullptr ? pool.available() : 1; }

int64_t threads_for(int64_t steps, int64_t grain) {
    const int64_t available = available_threads();
    if (available <= 1) return 1;
    const int64_t least = std::max<int64_t>(grain, 1);
    return std::min(available, (steps + least - 1) / least);
}

void on_threads(int64_t threads, void (*work)(void *, int64_t, int64_t), void *context) { pool.run(threads, work, context); }

}  // namespace ckernels
