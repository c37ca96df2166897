#include "RowKernels.hpp"

#include <cmath>

#include "Clones.hpp"
#include "Exponential.hpp"
#include "Parallel.hpp"

using ctorch::exponential;

namespace {

/// Numbers that one thread takes at least.
constexpr int64_t grain = 32768;

int64_t row_grain(int64_t size) { return std::max<int64_t>(1, grain / std::max<int64_t>(size, 1)); }

/// Sums of so many numbers each, so that rounding doesn't grow with the row and the loop can be vectorised without
/// leave to reorder.
constexpr int lanes = 32;

inline float sum_of(const float *part) {
    float sum = 0;
    for (int lane = 0; lane < lanes; ++lane) sum += part[lane];
    return sum;
}

CT_CLONES void norm_forward(const float *x, const float *weight, float epsilon, float *y, float *inverse, int64_t rows,
                            int64_t size) {
    for (int64_t row = 0; row < rows; ++row, x += size, y += size) {
        float part[lanes] = {};
        int64_t i = 0;
        for (; i + lanes <= size; i += lanes) {
            for (int lane = 0; lane < lanes; ++lane) part[lane] += x[i + lane] * x[i + lane];
        }
        float squares = sum_of(part);
        for (; i < size; ++i) squares += x[i] * x[i];
        float factor = 1 / std::sqrt(squares / static_cast<float>(size) + epsilon);
        inverse[row] = factor;
        for (int64_t j = 0; j < size; ++j) y[j] = x[j] * factor * weight[j];
    }
}

CT_CLONES void norm_backward(const float *gradient, const float *x, const float *weight, const float *inverse,
                             float *to_x, int64_t rows, int64_t size) {
    for (int64_t row = 0; row < rows; ++row, gradient += size, x += size, to_x += size) {
        float part[lanes] = {};
        int64_t i = 0;
        for (; i + lanes <= size; i += lanes) {
            for (int lane = 0; lane < lanes; ++lane) {
                part[lane] += gradient[i + lane] * weight[i + lane] * x[i + lane];
            }
        }
        float along = sum_of(part);
        for (; i < size; ++i) along += gradient[i] * weight[i] * x[i];
        float factor = inverse[row], back = along * factor * factor * factor / static_cast<float>(size);
        for (int64_t j = 0; j < size; ++j) to_x[j] = gradient[j] * weight[j] * factor - x[j] * back;
    }
}

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

#define CT_GATE(NAME, KIND)                                                                                          \
    CT_CLONES void NAME##_forward(const float *gate, const float *up, float *y, int64_t begin, int64_t end) {        \
        for (int64_t i = begin; i < end; ++i) {                                                                      \
            float value, slope;                                                                                      \
            KIND::both(gate[i], value, slope);                                                                       \
            y[i] = value * up[i];                                                                                    \
        }                                                                                                            \
    }                                                                                                                \
    CT_CLONES void NAME##_backward(const float *gradient, const float *gate, const float *up, float *to_gate,        \
                                   float *to_up, int64_t begin, int64_t end) {                                       \
        for (int64_t i = begin; i < end; ++i) {                                                                      \
            float value, slope;                                                                                      \
            KIND::both(gate[i], value, slope);                                                                       \
            to_gate[i] = gradient[i] * up[i] * slope;                                                                \
            to_up[i] = gradient[i] * value;                                                                          \
        }                                                                                                            \
    }

CT_GATE(silu, Silu)
CT_GATE(gelu, GeluTanh)
CT_GATE(relu, Relu)
#undef CT_GATE

CT_CLONES void rotate(const float *x, const float *cosines, const float *sines, float direction, float *y,
                      int64_t tokens, int64_t heads, int64_t size, int64_t pairs) {
    for (int64_t token = 0; token < tokens; ++token, cosines += pairs, sines += pairs) {
        for (int64_t head = 0; head < heads; ++head, x += size, y += size) {
            for (int64_t i = 0; i < pairs; ++i) {
                float a = x[i], b = x[i + pairs], sine = sines[i] * direction;
                y[i] = a * cosines[i] - b * sine;
                y[i + pairs] = b * cosines[i] + a * sine;
            }
            for (int64_t i = 2 * pairs; i < size; ++i) y[i] = x[i];
        }
    }
}

// Untyped: the names of the typed ones differ between compilers in some versions of libtorch.
const float *in(const at::Tensor &x) { return static_cast<const float *>(x.const_data_ptr()); }
float *out(at::Tensor &x) { return static_cast<float *>(x.mutable_data_ptr()); }

}  // namespace

namespace ctorch {

void rms_norm_rows(const at::Tensor &x, const at::Tensor &weight, float epsilon, at::Tensor &y, at::Tensor &inverse) {
    if (x.is_meta()) return;
    int64_t size = weight.numel();
    ctorch::parallel_for(0, inverse.numel(), row_grain(size), [&](int64_t begin, int64_t end) {
        norm_forward(in(x) + begin * size, in(weight), epsilon, out(y) + begin * size, out(inverse) + begin,
                     end - begin, size);
    });
}

void rms_norm_rows_backward(const at::Tensor &gradient, const at::Tensor &x, const at::Tensor &weight,
                            const at::Tensor &inverse, at::Tensor &to_x) {
    if (x.is_meta()) return;
    int64_t size = weight.numel();
    ctorch::parallel_for(0, inverse.numel(), row_grain(size), [&](int64_t begin, int64_t end) {
        norm_backward(in(gradient) + begin * size, in(x) + begin * size, in(weight), in(inverse) + begin,
                      out(to_x) + begin * size, end - begin, size);
    });
}

bool has_gate_kernel(CTActivation kind) { return kind == CT_SILU || kind == CT_GELU_TANH || kind == CT_RELU; }

void gate_rows(CTActivation kind, const at::Tensor &gate, const at::Tensor &up, at::Tensor &y) {
    if (gate.is_meta()) return;
    auto kernel = kind == CT_SILU ? silu_forward : kind == CT_RELU ? relu_forward : gelu_forward;
    ctorch::parallel_for(0, gate.numel(), grain,
                     [&](int64_t begin, int64_t end) { kernel(in(gate), in(up), out(y), begin, end); });
}

void gate_rows_backward(CTActivation kind, const at::Tensor &gradient, const at::Tensor &gate, const at::Tensor &up,
                        at::Tensor &to_gate, at::Tensor &to_up) {
    if (gate.is_meta()) return;
    auto kernel = kind == CT_SILU ? silu_backward : kind == CT_RELU ? relu_backward : gelu_backward;
    ctorch::parallel_for(0, gate.numel(), grain, [&](int64_t begin, int64_t end) {
        kernel(in(gradient), in(gate), in(up), out(to_gate), out(to_up), begin, end);
    });
}

void rotate_rows(const at::Tensor &x, const at::Tensor &cosines, const at::Tensor &sines, float direction,
                 at::Tensor &y) {
    if (x.is_meta()) return;
    int64_t heads = x.size(1), size = x.size(2), pairs = cosines.size(1), width = heads * size;
    ctorch::parallel_for(0, x.size(0), row_grain(width), [&](int64_t begin, int64_t end) {
        rotate(in(x) + begin * width, in(cosines) + begin * pairs, in(sines) + begin * pairs, direction,
               out(y) + begin * width, end - begin, heads, size, pairs);
    });
}

}  // namespace ctorch
