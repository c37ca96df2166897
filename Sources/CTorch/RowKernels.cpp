#include "RowKernels.hpp"

#include <cmath>

#include "BFloat.hpp"
#include "Clones.hpp"
#include "Exponential.hpp"
#include "Parallel.hpp"

using ctorch::BFloat;
using ctorch::exponential;
using ctorch::rounded;

namespace {

/// Minimum elements per thread.
constexpr int64_t grain = 32768;

int64_t row_grain(int64_t size) { return std::max<int64_t>(1, grain / std::max<int64_t>(size, 1)); }

/// Independent partial sums per row, which limit rounding errors and let the compiler vectorize without -ffast-math.
constexpr int lanes = 32;

inline float sum_of(const float *part) {
    float sum = 0;
    for (int lane = 0; lane < lanes; ++lane) sum += part[lane];
    return sum;
}

template <typename Number> struct NormForward {
    const Number *x;
    const float *weight;
    float epsilon;
    Number *y;
    float *inverse;
    int64_t rows, size;

    CT_INLINED void loop() {
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

    CT_INLINED void loop() {
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

    CT_INLINED float weighted(int64_t i) const { return static_cast<float>(gradient[i]) * weight[i]; }
};

struct Silu {
    static inline void both(float x, float &value, float &slope) {
        float sigmoid = 1 / (1 + exponential(-x));
        value = x * sigmoid;
        slope = sigmoid * (1 + x * (1 - sigmoid));
    }
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

    CT_INLINED void loop() {
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

    CT_INLINED void loop() {
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

    CT_INLINED void loop() {
        for (int64_t token = 0; token < tokens; ++token, cosines += pairs, sines += pairs) {
            for (int64_t head = 0; head < heads; ++head, x += size, y += size) {
                for (int64_t i = 0; i < pairs; ++i) {
                    const float a = x[i], b = x[i + pairs], cosine = cosines[i], sine = static_cast<float>(sines[i]) * direction;
                    y[i] = rounded<Number>(a * cosine - b * sine);
                    y[i + pairs] = rounded<Number>(b * cosine + a * sine);
                }
                for (int64_t i = 2 * pairs; i < size; ++i) y[i] = x[i];
            }
        }
    }
};

/// target_clones doesn't apply to templates: one function for each type and activation.
#define CT_RUN(...) \
    CT_CLONES void run(__VA_ARGS__ kernel) { kernel.loop(); }
#define CT_RUN_GATE(KIND)             \
    CT_RUN(GateForward<KIND, float>)  \
    CT_RUN(GateForward<KIND, BFloat>) \
    CT_RUN(GateBackward<KIND, float>) \
    CT_RUN(GateBackward<KIND, BFloat>)

CT_RUN(NormForward<float>)
CT_RUN(NormForward<BFloat>)
CT_RUN(NormBackward<float>)
CT_RUN(NormBackward<BFloat>)
CT_RUN(Rotation<float>)
CT_RUN(Rotation<BFloat>)
CT_RUN_GATE(Silu)
CT_RUN_GATE(GeluTanh)
CT_RUN_GATE(Relu)
#undef CT_RUN_GATE
#undef CT_RUN

// Untyped, since the typed accessors' symbol names differ between compilers in some versions of libtorch.
template <typename Number> const Number *in(const at::Tensor &x) { return static_cast<const Number *>(x.const_data_ptr()); }
template <typename Number> Number *out(at::Tensor &x) { return static_cast<Number *>(x.mutable_data_ptr()); }

/// Calls the body with a value of x's element type.
template <typename Body> void with_type(const at::Tensor &x, Body body) {
    if (x.scalar_type() == at::kBFloat16) return body(BFloat());
    body(0.0f);
}

/// Calls the body with a value of the activation's type.
template <typename Body> void with_kind(CTActivation kind, Body body) {
    if (kind == CT_SILU) return body(Silu());
    if (kind == CT_RELU) return body(Relu());
    body(GeluTanh());
}

}  // namespace

namespace ctorch {

void rms_norm_rows(const at::Tensor &x, const at::Tensor &weight, float epsilon, at::Tensor &y, at::Tensor &inverse) {
    if (x.is_meta()) return;
    const int64_t size = weight.numel();
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ctorch::parallel_for(0, inverse.numel(), row_grain(size), [&](int64_t begin, int64_t end) {
            run(NormForward<Number>{in<Number>(x) + begin * size, in<float>(weight), epsilon, out<Number>(y) + begin * size,
                                    out<float>(inverse) + begin, end - begin, size});
        });
    });
}

void rms_norm_rows_backward(const at::Tensor &gradient, const at::Tensor &x, const at::Tensor &weight,
                            const at::Tensor &inverse, at::Tensor &to_x) {
    if (x.is_meta()) return;
    const int64_t size = weight.numel();
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ctorch::parallel_for(0, inverse.numel(), row_grain(size), [&](int64_t begin, int64_t end) {
            run(NormBackward<Number>{in<Number>(gradient) + begin * size, in<Number>(x) + begin * size, in<float>(weight),
                                     in<float>(inverse) + begin, out<Number>(to_x) + begin * size, end - begin, size});
        });
    });
}

bool has_gate_kernel(CTActivation kind) { return kind == CT_SILU || kind == CT_GELU_TANH || kind == CT_RELU; }

void gate_rows(CTActivation kind, const at::Tensor &gate, const at::Tensor &up, at::Tensor &y) {
    if (gate.is_meta()) return;
    with_type(gate, [&](auto number) {
        using Number = decltype(number);
        with_kind(kind, [&](auto activation) {
            ctorch::parallel_for(0, gate.numel(), grain, [&](int64_t begin, int64_t end) {
                run(GateForward<decltype(activation), Number>{in<Number>(gate), in<Number>(up), out<Number>(y), begin, end});
            });
        });
    });
}

void gate_rows_backward(CTActivation kind, const at::Tensor &gradient, const at::Tensor &gate, const at::Tensor &up,
                        at::Tensor &to_gate, at::Tensor &to_up) {
    if (gate.is_meta()) return;
    with_type(gate, [&](auto number) {
        using Number = decltype(number);
        with_kind(kind, [&](auto activation) {
            ctorch::parallel_for(0, gate.numel(), grain, [&](int64_t begin, int64_t end) {
                run(GateBackward<decltype(activation), Number>{in<Number>(gradient), in<Number>(gate), in<Number>(up),
                                                              out<Number>(to_gate), out<Number>(to_up), begin, end});
            });
        });
    });
}

void rotate_rows(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, float direction,
                 at::Tensor &y) {
    if (x.is_meta()) return;
    const int64_t heads = x.size(1), size = x.size(2), pairs = cosines.size(1), width = heads * size;
    with_type(x, [&](auto number) {
        using Number = decltype(number);
        ctorch::parallel_for(0, x.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
            run(Rotation<Number>{in<Number>(x) + begin * width, in<Number>(cosines) + begin * pairs,
                                 in<Number>(sines) + begin * pairs, direction, out<Number>(y) + begin * width, end - begin, heads,
                                 size, pairs});
        });
    });
}

}  // namespace ctorch
