// Keeps OpenMP's threads from spinning while other processes need the cores.
#pragma once

namespace ctorch {

/// Starts monitoring, once per process, whether its threads are preempted.
void watch_contention();

}  // namespace ctorch
