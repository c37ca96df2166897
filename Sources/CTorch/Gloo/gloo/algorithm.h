// Declarations of Gloo's types for c10d's ProcessGroupGloo.hpp, whose own headers the torch package lacks. Only the names
// that the class layout mentions: libtorch holds the code, and `DistributedTests` runs it, so that a version with another
// layout is noticed.
#pragma once
