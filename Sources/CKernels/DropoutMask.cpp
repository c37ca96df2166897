#include "ckernels/DropoutMask.hpp"

#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using ckernels::BFloat;
using ckernels::bfloat_bits;
using ckernels::DropoutMask;

/// A bijective 32-bit hash ("lowbias32", Wellons 2018), keyed before and between its rounds.
inline uint32_t mix(uint32_t x, uint32_t key, uint32_t second_key) {
    x ^= key;
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x += second_key;
    x *= 0x846ca68bU;
    x ^= x >> 16;
    return x;
}

/// Applies elements first ..< first + count of the mask.
CK_CLONES void drop_float(const float *x, float *y, int64_t first, int64_t count, uint32_t key, uint32_t second_key,
                          uint32_t threshold, float factor) {
    const uint32_t start = static_cast<uint32_t>(first);
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits = mix(start + static_cast<uint32_t>(i), key, second_key);
        y[i] = bits < threshold ? 0.0f : x[i] * factor;
    }
}

CK_CLONES void drop_bfloat16(const BFloat *x, BFloat *y, int64_t begin, int64_t end, uint32_t key, uint32_t second_key,
                             uint32_t threshold, float factor) {
    for (int64_t i = begin; i < end; ++i) {
        uint32_t bits = mix(static_cast<uint32_t>(i), key, second_key);
        // A NaN stays one: its lower bits are 0.
        const uint16_t nearest = bfloat_bits(static_cast<float>(x[i]) * factor);
        y[i] = {bits < threshold ? uint16_t{0} : nearest};
    }
}

CK_CLONES void drop_double(const double *x, double *y, int64_t begin, int64_t end, uint32_t key, uint32_t second_key,
                           uint32_t threshold, double factor) {
    for (int64_t i = begin; i < end; ++i) {
        uint32_t bits = mix(static_cast<uint32_t>(i), key, second_key);
        y[i] = bits < threshold ? 0.0 : x[i] * factor;
    }
}

/// Threshold on the hash below which an element is dropped.
uint32_t threshold_of(double probability) {
    const double scaled = probability * 4294967296.0;
    return scaled >= 4294967295.0 ? UINT32_MAX : static_cast<uint32_t>(scaled);
}

double factor_of(double probability) { return probability < 1 ? 1 / (1 - probability) : 0; }

void drop_range(const float *x, float *y, int64_t begin, int64_t end, const DropoutMask &mask) {
    drop_float(x + begin, y + begin, begin, end - begin, mask.key, mask.second_key, mask.threshold,
               static_cast<float>(mask.factor));
}

void drop_range(const BFloat *x, BFloat *y, int64_t begin, int64_t end, const DropoutMask &mask) {
    drop_bfloat16(x, y, begin, end, mask.key, mask.second_key, mask.threshold, static_cast<float>(mask.factor));
}

void drop_range(const double *x, double *y, int64_t begin, int64_t end, const DropoutMask &mask) {
    drop_double(x, y, begin, end, mask.key, mask.second_key, mask.threshold, mask.factor);
}

}  // namespace

namespace ckernels {

DropoutMask::DropoutMask(double probability, uint64_t seed)
    : key(static_cast<uint32_t>(seed)), second_key(static_cast<uint32_t>(seed >> 32)), threshold(threshold_of(probability)),
      factor(factor_of(probability)) {}

template <typename Number> void drop(const Number *x, Number *y, int64_t count, const DropoutMask &mask) {
    parallel_for(0, count, 65536, [&](int64_t begin, int64_t end) { drop_range(x, y, begin, end, mask); });
}

template void drop(const float *, float *, int64_t, const DropoutMask &);
template void drop(const BFloat *, BFloat *, int64_t, const DropoutMask &);
template void drop(const double *, double *, int64_t, const DropoutMask &);

void drop_part(const float *x, float *y, int64_t first, int64_t count, const DropoutMask &mask) {
    drop_float(x, y, first, count, mask.key, mask.second_key, mask.threshold, static_cast<float>(mask.factor));
}

}  // namespace ckernels
