// Dropout masks that are functions of (seed, position).
#pragma once

#include <cstdint>

#include "ckernels/HalfPrecision.hpp"

namespace ckernels {

/// A mask whose element i is a function of (seed, i) alone: the same for every thread count and every call.
struct DropoutMask {
    uint32_t key, second_key;
    /// Elements whose hash is below it are dropped.
    uint32_t threshold;
    /// The others are multiplied by 1 / (1 − p).
    double factor;

    DropoutMask(double probability, uint64_t seed);
};

/// y = x ⊙ mask / (1 − p) for `count` elements on all threads. x and y may alias.
template <typename Number> void drop(const Number *x, Number *y, int64_t count, const DropoutMask &);
extern template void drop(const float *, float *, int64_t, const DropoutMask &);
extern template void drop(const BFloat *, BFloat *, int64_t, const DropoutMask &);
extern template void drop(const double *, double *, int64_t, const DropoutMask &);

/// Elements first ..< first + count of such a tensor, of which x and y are the first, on the calling thread.
void drop_part(const float *x, float *y, int64_t first, int64_t count, const DropoutMask &);

}  // namespace ckernels
