// The build is for any x86-64; a function that is marked CT_CLONES is compiled for several processors, and the loader picks
// the version for the one at hand.
#pragma once

#if defined(__x86_64__) && defined(__linux__)
#define CT_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CT_CLONES
#endif
