#include "ckernels/ColumnQuantizer.hpp"

#include <algorithm>
#include <cmath>

#include "ckernels/HalfPrecision.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using ckernels::rounded_to_half;

struct Grid {
    double scale, zero;
};

/// A scale as files store it.
double storable(double scale) { return rounded_to_half(static_cast<float>(std::clamp(scale, 0x1p-24, 65504.0))); }

/// Scale and zero point of a group: a range that contains 0 and all weights, in 2^bits steps. Scales are rounded to
/// fp16 before they are used, as files store them so.
Grid grid(const double *numbers, int64_t count, int bits, bool symmetric) {
    const double steps = static_cast<double>((1 << bits) - 1);
    double low = 0, high = 0;
    for (int64_t i = 0; i < count; ++i) {
        low = std::min(low, numbers[i]);
        high = std::max(high, numbers[i]);
    }
    if (symmetric) {
        high = std::max(high, -low);
        if (low < 0) low = -high;
    }
    if (low == 0 && high == 0) {
        low = -1;
        high = 1;
    }
    const double scale = storable((high - low) / steps);
    if (symmetric) return {scale, (steps + 1) / 2};
    const double zero = std::min(std::nearbyint(-low / scale), steps);
    // Files store z − 1, and most readers can't represent z = 0.
    return zero > 0 ? Grid{scale, zero} : Grid{storable(high / (steps - 1)), 1};
}

double nearest(double number, const Grid &grid, double steps) {
    return std::clamp(std::nearbyint(number / grid.scale) + grid.zero, 0.0, steps);
}

}  // namespace

namespace ckernels {

void ColumnQuantizer::quantize(int64_t first, int64_t end) const {
    const int64_t columns = groups();
    const double steps = static_cast<double>((1 << bits) - 1);
    // Outputs are independent of each other.
    parallel_for(0, outputs, 8, [&](int64_t from, int64_t to) {
        for (int64_t o = from; o < to; ++o) {
            double *row = weight + o * inputs;
            for (int64_t i = first; i < end; ++i) {
                const int64_t g = i / group_size;
                if (i % group_size == 0) {
                    // A group that reaches beyond the block uses the weights as they are now, as in the
                    // reference implementation.
                    Grid now = grid(row + i, std::min(group_size, inputs - i), bits, symmetric);
                    scales[o * columns + g] = now.scale;
                    zeros[o * columns + g] = now.zero;
                }
                const Grid group_grid{scales[o * columns + g], zeros[o * columns + g]};
                const double value = nearest(row[i], group_grid, steps);
                integers[o * inputs + i] = static_cast<int32_t>(value);
                if (!factor) continue;
                const double *line = factor + i * inputs;
                const double error = (row[i] - group_grid.scale * (value - group_grid.zero)) / line[i];
                for (int64_t j = i + 1; j < end; ++j) row[j] -= error * line[j];
                errors[o * error_stride + i - first] = error;
            }
        }
    });
}

}  // namespace ckernels
