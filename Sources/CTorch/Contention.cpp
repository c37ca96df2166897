// OpenMP's threads beside other busy processes.
//
// At each barrier libgomp's threads spin for 300,000 turns, some milliseconds, before they sleep. Alone that is the fastest way.
// Beside a busy process a thread that spins takes the core that the thread it waits for needs: training fell to a tenth.
// GOMP_SPINCOUNT would change that, but libgomp reads it before `main`. It also spins for only 100 turns while more threads are
// managed than there are processors (GOMP_SPINCOUNT in its manual). So, while this process's threads are often taken off
// their cores, one more team of threads is held, all of which sleep.
//
// Where the user has set OMP_WAIT_POLICY or GOMP_SPINCOUNT nothing is done.
#include "Contention.hpp"

#if defined(__linux__)

#include <dlfcn.h>
#include <sched.h>
#include <sys/resource.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace {

using Parallel = void (*)(void (*)(void *), void *, unsigned, unsigned);

/// How often the system took a core away from one of the process's threads, so far.
long preemptions() {
    rusage usage{};
    return getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
}

unsigned processors() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return std::thread::hardware_concurrency();
    return static_cast<unsigned>(CPU_COUNT(&set));
}

/// A team of sleeping threads, one more than there are processors.
class SpareTeam {
public:
    bool is_held() const { return holder.joinable(); }

    void hold(Parallel parallel) {
        const unsigned count = processors() + 1;
        // libgomp ends the process where it can't make a thread.
        if (!can_make(count)) return;
        is_over = false;
        holder = std::thread([this, parallel, count] {
            parallel([](void *) {}, nullptr, count, 0);
            std::unique_lock<std::mutex> lock(mutex);
            end.wait(lock, [this] { return is_over; });
            // The team goes with its first thread.
        });
    }

    void release() {
        {
            std::lock_guard<std::mutex> lock(mutex);
            is_over = true;
        }
        end.notify_all();
        holder.join();
    }

private:
    std::thread holder;
    std::mutex mutex;
    std::condition_variable end;
    bool is_over = false;

    static bool can_make(unsigned count) {
        std::mutex gate;
        std::vector<std::thread> threads;
        bool is_possible = true;
        {
            // All wait until the last is there.
            std::lock_guard<std::mutex> lock(gate);
            try {
                for (unsigned i = 0; i < count; ++i) threads.emplace_back([&gate] { std::lock_guard<std::mutex> own(gate); });
            } catch (const std::system_error &) {
                is_possible = false;
            }
        }
        for (std::thread &thread : threads) thread.join();
        return is_possible;
    }
};

void watch(Parallel parallel) {
    using namespace std::chrono_literals;
    constexpr auto interval = 100ms;
    /// Alone there are a few a second, beside a busy process more than a hundred.
    constexpr long limit = 5;
    /// Intervals without contention after which the team goes. Threads that sleep are rarely preempted, so it also goes while
    /// the contention lasts, and is back after one interval.
    constexpr int patience = 50;
    // Never destroyed: the process may end while the thread sleeps.
    auto &team = *new SpareTeam;
    int calm = 0;
    for (long before = preemptions();;) {
        std::this_thread::sleep_for(interval);
        const long now = preemptions();
        calm = now - before >= limit ? 0 : calm + 1;
        before = now;
        if (calm == 0 && !team.is_held()) team.hold(parallel);
        if (calm >= patience && team.is_held()) team.release();
    }
}

}  // namespace

namespace ctorch {

void watch_contention() {
    static std::once_flag once;
    std::call_once(once, [] {
        if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
        const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
        if (parallel == nullptr || processors() < 2) return;
        try {
            std::thread(watch, parallel).detach();
        } catch (const std::system_error &) {
            // Without the thread everything works as before.
        }
    });
}

}  // namespace ctorch

#else

namespace ctorch {

void watch_contention() {}

}  // namespace ctorch

#endif
