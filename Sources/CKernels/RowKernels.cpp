#include "ckernels/RowKernels.hpp"

#include <algorithm>
#include <cmath>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "ckernels/HalfPrecision.hpp"
#include "ckernels/Parallel.hpp"

using ckernels::BFloat;
using ckernels::exponential;
using ckernels::rounded;
using ckernels::sum_of;

namespace {

/// Minimum elements per thread.
constexpr int64_t grain = 32768;

int64_t row_grain(int64_t size) { return std::max<int64_t>(1, grain / std::max<int64_t>(size, 1)); }

/// Independent partial sums per row, which limit rounding errors and let the compiler vectorize without -ffast-math.
constexpr int lanes = 32;

template <typename Number> struct NormForward {
    const Number *x;
    const float *weight;
    float epsilon;
    Number *y;
    float *inverse;
    int64_t rows, size;

    CK_INLINED void loop() {
        for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
            float part[lanes] = {};
            int64_t i = 0;
            for (; i + lanes <= size; i += lanes) {
                for (int lane = 0; lane < lanes; ++lane) {
                    const float one = x[i + lane];
                    part[lane] += one * one;
                }
            }
            float squares = sum_of(part);
            for (; i < size; ++i) squares += static_cast<float>(x[i]) * static_cast<float>(x[i]);
            const float factor = 1 / std::sqrt(squares / static_cast<float>(size) + epsilon);
            inverse[row] = factor;
            for (int64_t j = 0; j < size; ++j) {
                y[j] = rounded<Number>(static_cast<float>(x[j]) * factor * weight[j]);
            }
        }
    }
};

template <typename Number> struct NormBackward {
    const Number *gradient, *x;
    const float *weight, *inverse;
    Number *to_x;
    int64_t rows, size;

    CK_INLINED void loop() {
        for (int64_t row = 0; row < rows; ++row, gradient += size, x += size, to_x += size) {
            float part[lanes] = {};
            int64_t i = 0;
            for (; i + lanes <= size; i += lanes) {
                for (int lane = 0; lane < lanes; ++lane) part[lane] += weighted(i + lane) * static_cast<float>(x[i + lane]);
            }
            float along = sum_of(part);
            for (; i < size; ++i) along += weighted(i) * static_cast<float>(x[i]);
            const float factor = inverse[row], back = along * factor * factor * factor / static_cast<float>(size);
            for (int64_t j = 0; j < size; ++j) {
                to_x[j] = rounded<Number>(weighted(j) * factor - static_cast<float>(x[j]) * back);
            }
        }
    }

    CK_INLINED float weighted(int64_t i) const { return static_cast<float>(gradient[i]) * weight[i]; }
};

struct Silu {
    static inline void both(float x, float &value, float &slope) { ckernels::silu(x, value, slope); }
};

struct GeluTanh {
    static inline void both(float x, float &value, float &slope) {
        constexpr float root = 0.79788456f, cube = 0.044715f;
        float inner = root * (x + cube * x * x * x);
        // (1 + tanh u) / 2 is the logistic function of 2u.
        float half = 1 / (1 + exponential(-2 * inner));
        value = x * half;
        slope = half + x * 2 * half * (1 - half) * root * (1 + 3 * cube * x * x);
    }
};

struct Relu {
    static inline void both(float x, float &value, float &slope) {
        value = x > 0 ? x : 0;
        slope = x > 0 ? 1.0f : 0.0f;
    }
};

template <typename Kind, typename Number> struct GateForward {
    const Number *gate, *up;
    Number *y;
    int64_t begin, end;

    CK_INLINED void loop() {
        for (int64_t i = begin; i < end; ++i) {
            float value, slope;
            Kind::both(gate[i], value, slope);
            y[i] = rounded<Number>(value * static_cast<float>(up[i]));
        }
    }
};

template <typename Kind, typename Number> struct GateBackward {
    const Number *gradient, *gate, *up;
    Number *to_gate, *to_up;
    int64_t begin, end;

    CK_INLINED void loop() {
        for (int64_t i = begin; i < end; ++i) {
            float value, slope;
            Kind::both(gate[i], value, slope);
            const float own = gradient[i];
            to_gate[i] = rounded<Number>(own * static_cast<float>(up[i]) * slope);
            to_up[i] = rounded<Number>(own * value);
        }
    }
};

template <typename Number> struct Rotation {
    const Number *x, *cosines, *sines;
    float direction;
    Number *y;
    int64_t tokens, heads, size, pairs;
    bool interleaved;

    /// Rotates the components at `step` · i and `step` · i + `other`.
    CK_INLINED void rotate(int64_t step, int64_t other) {
        for (int64_t i = 0; i < pairs; ++i) {
            const float a = x[step * i], b = x[step * i + other], cosine = cosines[i];
            const float sine = static_cast<float>(sines[i]) * direction;
            y[step * i] = rounded<Number>(a * cosine - b * sine);
            y[step * i + other] = rounded<Number>(b * cosine + a * sine);
        }
    }

    CK_INLINED void loop() {
        for (int64_t token = 0; token < tokens; ++token, cosines += pairs, sines += pairs) {
            for (int64_t head = 0; head < heads; ++head, x += size, y += size) {
                if (interleaved) rotate(2, 1);
                else rotate(1, pairs);
                for (int64_t i = 2 * pairs; i < size; ++i) y[i] = x[i];
            }
        }
    }
};

/// target_clones doesn't apply to templates: one function for each type and activation.
#define CK_RUN(...) \
    CK_CLONES void run(__VA_ARGS__ kernel) { kernel.loop(); }
#define CK_RUN_GATE(KIND)             \
    CK_RUN(GateForward<KIND, float>)  \
    CK_RUN(GateForward<KIND, BFloat>) \
    CK_RUN(GateBackward<KIND, float>) \
    CK_RUN(GateBackward<KIND, BFloat>)

CK_RUN(NormForward<float>)
CK_RUN(NormForward<BFloat>)
CK_RUN(NormBackward<float>)
CK_RUN(NormBackward<BFloat>)
CK_RUN(Rotation<float>)
CK_RUN(Rotation<BFloat>)
CK_RUN_GATE(Silu)
CK_RUN_GATE(GeluTanh)
CK_RUN_GATE(Relu)
#undef CK_RUN_GATE
#undef CK_RUN

/// Calls the body with a value of the activation's type.
template <typename Body> void with_kind(ckernels::Gate kind, Body body) {
    if (kind == ckernels::Gate::silu) return body(Silu());
    if (kind == ckernels::Gate::relu) return body(Relu());
    body(GeluTanh());
}

}  // namespace

namespace ckernels {

template <typename Number>
void rms_norm_rows(const Number *x, const float *weight, float epsilon, Number *y, float *inverse, int64_t rows, int64_t size) {
    parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
        run(NormForward<Number>{x + begin * size, weight, epsilon, y + begin * size, inverse + begin, end - begin, size});
    });
}

template <typename Number>
void rms_norm_rows_backward(const Number *gradient, const Number *x, const float *weight, const float *inverse, Number *to_x,
                            int64_t rows, int64_t size) {
    parallel_for(0, rows, row_grain(size), [&](int64_t begin, int64_t end) {
        run(NormBackward<Number>{gradient + begin * size, x + begin * size, weight, inverse + begin, to_x + begin * size,
                                 end - begin, size});
    });
}

template <typename Number> void gate_rows(Gate kind, const Number *gate, const Number *up, Number *y, int64_t count) {
    with_kind(kind, [&](auto activation) {
        parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
            run(GateForward<decltype(activation), Number>{gate, up, y, begin, end});
        });
    });
}

template <typename Number>
void gate_rows_backward(Gate kind, const Number *gradient, const Number *gate, const Number *up, Number *to_gate, Number *to_up,
                        int64_t count) {
    with_kind(kind, [&](auto activation) {
        parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
            run(GateBackward<decltype(activation), Number>{gradient, gate, up, to_gate, to_up, begin, end});
        });
    });
}

template <typename Number>
void rotate_rows(const Number *x, const Number *cosines, const Number *sines, float direction, Number *y, int64_t tokens,
                 int64_t heads, int64_t size, int64_t pairs, bool interleaved) {
    const int64_t width = heads * size;
    parallel_for(0, tokens, row_grain(width), [&](int64_t begin, int64_t end) {
        run(Rotation<Number>{x + begin * width, cosines + begin * pairs, sines + begin * pairs, direction, y + begin * width,
                             end - begin, heads, size, pairs, interleaved});
    });
}

#define CK_ROW_KERNELS(NUMBER)                                                                                            \
    template void rms_norm_rows(const NUMBER *, const float *, float, NUMBER *, float *, int64_t, int64_t);               \
    template void rms_norm_rows_backward(const NUMBER *, const NUMBER *, const float *, const float *, NUMBER *, int64_t, \
                                         int64_t);                                                                        \
    template void gate_rows(Gate, const NUMBER *, const NUMBER *, NUMBER *, int64_t);                                     \
    template void gate_rows_backward(Gate, const NUMBER *, const NUMBER *, const NUMBER *, NUMBER *, NUMBER *, int64_t);  \
    template void rotate_rows(const NUMBER *, const NUMBER *, const NUMBER *, float, NUMBER *, int64_t, int64_t, int64_t, \
                              int64_t, bool);
CK_ROW_KERNELS(float)
CK_ROW_KERNELS(BFloat)
#undef CK_ROW_KERNELS

}  // namespace ckernels
