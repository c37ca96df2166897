// Keeps OpenMP's threads from spinning while other processes need the cores.
//
// At each barrier libgomp's threads spin for 300,000 iterations, some milliseconds, before they sleep. On an idle
// machine that is fastest. Next to a busy process a spinning thread occupies the core that the thread it waits for
// needs: training ran at a tenth of its speed. libgomp reads GOMP_SPINCOUNT before `main`, so it can't be set here.
// But libgomp also spins for only 100 iterations while it manages more threads than there are processors
// (GOMP_SPINCOUNT in its manual). So while this process's threads are often preempted, an additional team of sleeping
// threads is kept alive.
//
// Does nothing where the user has set OMP_WAIT_POLICY or GOMP_SPINCOUNT.
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

/// Involuntary context switches of the process's threads so far.
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
        // libgomp aborts the process if it can't create a thread.
        if (!can_make(count)) return;
        is_over = false;
        holder = std::thread([this, parallel, count] {
            parallel([](void *) {}, nullptr, count, 0);
            std::unique_lock<std::mutex> lock(mutex);
            end.wait(lock, [this] { return is_over; });
            // The team ends with its first thread.
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
            // All wait until the last one has started.
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
    // Long enough that single bursts, of up to 27 switches, don't count.
    constexpr auto interval = 500ms;
    /// Involuntary switches of all threads in an interval that mean contention. On 2 cores of an AMD Zen 3 there are about 15
    /// alone, 90 beside a busy loop, and over 1,000 while the team is held beside one. One loop beside many cores may stay below.
    const long limit = 25 * static_cast<long>(processors());
    /// Intervals without contention after which the team ends.
    constexpr int patience = 4;
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
            // If the thread can't be created, libgomp spins as before.
        }
    });
}

}  // namespace ctorch

#else

namespace ctorch {

void watch_contention() {}

}  // namespace ctorch

#endif
