#include "ckernels/GatedNorm.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

using namespace ckernels;

namespace {

/// Minimum elements per thread.
constexpr int64_t grain = 32768;
/// The gradient of the weight is summed in so many parts, whatever the number of threads is.
constexpr int64_t most_parts = 64;
constexpr int lanes = 32;

/// Σ a b with independent partial sums.
CK_INLINED float inner(const float *a, const float *b, int64_t count) {
    float part[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (int lane = 0; lane < lanes; ++lane) part[lane] += a[i + lane] * b[i + lane];
    }
    float sum = sum_of(part);
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

/// Tokens first ..< end.
template <typename Number> struct Forward {
    const GatedNorm<Number> &norm;
    Number *y;
    float *inverse;
    int64_t first, end;
    /// [2, size]
    float *buffer;

    CK_INLINED void loop() {
        const int64_t size = norm.size;
        float *input = buffer, *factor = input + size;
        for (int64_t token = first; token < end; ++token) {
            for (int64_t group = 0; group < norm.groups; ++group) {
                const int64_t row = token * norm.groups + group;
                const Number *x = norm.x + row * size, *gate = norm.gate + token * norm.gate_stride + group * size;
                const float *weight = norm.weight + (norm.has_weights_of_groups ? group * size : 0);
                if (norm.has_gate_first) {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        const float own = gate[i];
                        input[i] = static_cast<float>(x[i]) * (own / (1 + exponential(-own)));
                        factor[i] = weight[i];
                    }
                } else {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        const float own = gate[i];
                        input[i] = x[i];
                        factor[i] = weight[i] * (own / (1 + exponential(-own)));
                    }
                }
                const float scale = 1 / std::sqrt(inner(input, input, size) / static_cast<float>(size) + norm.epsilon);
                inverse[row] = scale;
                Number *result = y + row * size;
                CK_INDEPENDENT
                for (int64_t i = 0; i < size; ++i) result[i] = rounded<Number>(input[i] * scale * factor[i]);
            }
        }
    }
};

template <typename Number> struct Backward {
    const GatedNorm<Number> &norm;
    const Number *gradient;
    const float *inverse;
    Number *to_x, *to_gate;
    /// Added to unless NULL.
    float *to_weight;
    int64_t first, end;
    /// [4, size]
    float *buffer;

    CK_INLINED void loop() {
        const int64_t size = norm.size;
        // silu(gate) and its derivative, what is normalized, and the gradient w.r.t. the result of that.
        float *values = buffer, *slopes = values + size, *input = slopes + size, *to_normed = input + size;
        for (int64_t token = first; token < end; ++token) {
            for (int64_t group = 0; group < norm.groups; ++group) {
                const int64_t row = token * norm.groups + group, place = norm.has_weights_of_groups ? group * size : 0;
                const Number *x = norm.x + row * size, *gate = norm.gate + token * norm.gate_stride + group * size;
                const Number *upstream = gradient + row * size;
                const float *weight = norm.weight + place;
                Number *own_x = to_x + row * size, *own_gate = to_gate + row * size;
                const float scale = inverse[row];
                CK_INDEPENDENT
                for (int64_t i = 0; i < size; ++i) silu(gate[i], values[i], slopes[i]);
                if (norm.has_gate_first) {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        input[i] = static_cast<float>(x[i]) * values[i];
                        to_normed[i] = static_cast<float>(upstream[i]) * weight[i];
                    }
                } else {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        input[i] = x[i];
                        to_normed[i] = static_cast<float>(upstream[i]) * weight[i] * values[i];
                    }
                }
                if (to_weight) {
                    float *sums = to_weight + place;
                    const bool has_gate_first = norm.has_gate_first;
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        sums[i] += static_cast<float>(upstream[i]) * input[i] * scale * (has_gate_first ? 1.0f : values[i]);
                    }
                }
                const float along = inner(to_normed, input, size),
                            back = along * scale * scale * scale / static_cast<float>(size);
                if (norm.has_gate_first) {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        const float to_input = to_normed[i] * scale - input[i] * back;
                        own_x[i] = rounded<Number>(to_input * values[i]);
                        own_gate[i] = rounded<Number>(to_input * static_cast<float>(x[i]) * slopes[i]);
                    }
                } else {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < size; ++i) {
                        own_x[i] = rounded<Number>(to_normed[i] * scale - input[i] * back);
                        own_gate[i] = rounded<Number>(static_cast<float>(upstream[i]) * weight[i] * input[i] * scale * slopes[i]);
                    }
                }
            }
        }
    }
};

/// target_clones doesn't apply to templates: one function for each type.
#define CK_RUN(...) \
    CK_CLONES void run(__VA_ARGS__ kernel) { kernel.loop(); }
CK_RUN(Forward<float>)
CK_RUN(Forward<BFloat>)
CK_RUN(Backward<float>)
CK_RUN(Backward<BFloat>)
#undef CK_RUN

}  // namespace

namespace ckernels {

template <typename Number> void gated_norm(const GatedNorm<Number> &norm, Number *y, float *inverse) {
    const int64_t width = std::max<int64_t>(1, norm.groups * norm.size);
    parallel_for(0, norm.tokens, std::max<int64_t>(1, grain / width), [&](int64_t begin, int64_t end) {
        std::vector<float> buffer(static_cast<size_t>(2 * norm.size));
        run(Forward<Number>{norm, y, inverse, begin, end, buffer.data()});
    });
}

template <typename Number>
void gated_norm_backward(const GatedNorm<Number> &norm, const Number *gradient, const float *inverse, Number *to_x,
                         Number *to_gate, float *to_weight) {
    const int64_t width = std::max<int64_t>(1, norm.groups * norm.size), least = std::max<int64_t>(1, grain / width);
    if (!to_weight) {
        parallel_for(0, norm.tokens, least, [&](int64_t begin, int64_t end) {
            std::vector<float> buffer(static_cast<size_t>(4 * norm.size));
            run(Backward<Number>{norm, gradient, inverse, to_x, to_gate, nullptr, begin, end, buffer.data()});
        });
        return;
    }
    const int64_t weights = norm.has_weights_of_groups ? norm.groups * norm.size : norm.size;
    const int64_t step = (norm.tokens + most_parts - 1) / most_parts, parts = step > 0 ? (norm.tokens + step - 1) / step : 0;
    std::vector<float> sums(static_cast<size_t>(parts * weights));
    parallel_for(0, parts, std::max<int64_t>(1, least / std::max<int64_t>(step, 1)), [&](int64_t begin, int64_t end) {
        std::vector<float> buffer(static_cast<size_t>(4 * norm.size));
        for (int64_t part = begin; part < end; ++part) {
            run(Backward<Number>{norm, gradient, inverse, to_x, to_gate, sums.data() + part * weights, part * step,
                                 std::min(norm.tokens, (part + 1) * step), buffer.data()});
        }
    });
    std::fill_n(to_weight, weights, 0.0f);
    for (int64_t part = 0; part < parts; ++part) {
        for (int64_t i = 0; i < weights; ++i) to_weight[i] += sums[static_cast<size_t>(part * weights + i)];
    }
}

#define CK_GATED_NORM(NUMBER)                                               \
    template void gated_norm(const GatedNorm<NUMBER> &, NUMBER *, float *); \
    template void gated_norm_backward(const GatedNorm<NUMBER> &, const NUMBER *, const float *, NUMBER *, NUMBER *, float *);
CK_GATED_NORM(float)
CK_GATED_NORM(BFloat)
#undef CK_GATED_NORM

}  // namespace ckernels
