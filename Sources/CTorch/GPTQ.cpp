// GPTQ (Frantar et al. 2022): columns are quantized one after another, and the rounding error of each is compensated
// in the columns that follow.
#include <ATen/ops/cholesky_inverse.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_cholesky.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "Bridge.hpp"
#include "ckernels/Parallel.hpp"

using namespace ctorch;

namespace {

/// Columns whose errors are propagated beyond them at once (the paper's block size B).
constexpr int64_t block_size = 128;

struct Grid {
    double scale, zero;
};

/// A scale as files store it.
double storable(double scale) {
    return static_cast<float>(c10::Half(static_cast<float>(std::clamp(scale, 0x1p-24, 65504.0))));
}

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

/// Upper triangular U with Uᵀ U = H⁻¹, H damped by a fraction of its mean diagonal. Inputs that are always 0 get a
/// diagonal of 1, and weights of 0.
at::Tensor inverse_factor(const at::Tensor &hessian, at::Tensor &weight, double damping) {
    at::Tensor h = hessian.to(at::kDouble).clone();
    at::Tensor diagonal = h.diagonal();
    at::Tensor dead = diagonal.eq(0);
    diagonal.masked_fill_(dead, 1);
    weight.masked_fill_(dead.unsqueeze(0), 0);
    diagonal.add_(diagonal.mean().mul(damping));
    at::Tensor inverse = at::cholesky_inverse(at::linalg_cholesky(h));
    return at::linalg_cholesky(inverse, true).contiguous();
}

}  // namespace

extern "C" int ct_gptq(const CTTensor *weight_box, const CTTensor *hessian, int bits, int64_t group_size,
                       bool symmetric, double damping, CTTensor **values, CTTensor **scales, CTTensor **zeros) {
    return status_or_error([&] {
        at::Tensor weight = unbox(weight_box).to(at::kCPU, at::kDouble).clone().contiguous();
        const int64_t outputs = weight.size(0), inputs = weight.size(1);
        const int64_t groups = (inputs + group_size - 1) / group_size;
        const bool compensates = hessian && unbox(hessian).defined();
        at::Tensor factor = compensates ? inverse_factor(unbox(hessian).to(at::kCPU), weight, damping) : at::Tensor();
        at::Tensor q = at::empty({outputs, inputs}, at::kInt);
        at::Tensor scale = at::empty({outputs, groups}, at::kDouble), zero = at::empty({outputs, groups}, at::kDouble);
        at::Tensor errors = at::empty({outputs, std::min(block_size, inputs)}, at::kDouble);
        auto *w = static_cast<double *>(weight.mutable_data_ptr());
        auto *integers = static_cast<int32_t *>(q.mutable_data_ptr());
        auto *s = static_cast<double *>(scale.mutable_data_ptr()), *z = static_cast<double *>(zero.mutable_data_ptr());
        const auto *u = compensates ? static_cast<const double *>(factor.const_data_ptr()) : nullptr;
        const double steps = static_cast<double>((1 << bits) - 1);
        for (int64_t first = 0; first < inputs; first += block_size) {
            const int64_t end = std::min(first + block_size, inputs), width = end - first;
            at::Tensor lost = errors.narrow(1, 0, width);
            auto *e = static_cast<double *>(errors.mutable_data_ptr());
            // Outputs are independent of each other.
            ckernels::parallel_for(0, outputs, 8, [&](int64_t from, int64_t to) {
                for (int64_t o = from; o < to; ++o) {
                    double *row = w + o * inputs;
                    for (int64_t i = first; i < end; ++i) {
                        const int64_t g = i / group_size;
                        if (i % group_size == 0) {
                            // A group that reaches beyond the block uses the weights as they are now, as in the
                            // reference implementation.
                            Grid now = grid(row + i, std::min(group_size, inputs - i), bits, symmetric);
                            s[o * groups + g] = now.scale;
                            z[o * groups + g] = now.zero;
                        }
                        const Grid group_grid{s[o * groups + g], z[o * groups + g]};
                        const double value = nearest(row[i], group_grid, steps);
                        integers[o * inputs + i] = static_cast<int32_t>(value);
                        if (!u) continue;
                        const double *line = u + i * inputs;
                        const double error = (row[i] - group_grid.scale * (value - group_grid.zero)) / line[i];
                        for (int64_t j = i + 1; j < end; ++j) row[j] -= error * line[j];
                        e[o * errors.size(1) + i - first] = error;
                    }
                }
            });
            if (compensates && end < inputs) {
                at::Tensor rest = weight.narrow(1, end, inputs - end);
                rest.addmm_(lost, factor.narrow(0, first, width).narrow(1, end, inputs - end), 1, -1);
            }
        }
        *values = box(q.t().contiguous());
        *scales = box(scale.t().contiguous());
        *zeros = box(zero.t().contiguous());
    });
}
