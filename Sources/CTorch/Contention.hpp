// OpenMP's threads beside other busy processes.
#pragma once

namespace ctorch {

/// Begins to watch, once for the process, whether other processes take this one's cores.
void watch_contention();

}  // namespace ctorch
