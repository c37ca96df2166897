// e^x in a form that compilers vectorize.
#pragma once

#include <cstdint>
#include <cstring>

namespace ckernels {

/// e^x to about one unit in the last place: 2^n · e^r with |r| ≤ ln 2 / 2, the latter by its Taylor polynomial.
inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x > 88.0f ? 88.0f : x;
    // Adding and subtracting 1.5 · 2^23 rounds to an integer.
    float n = x * 1.44269504f + 12582912.0f - 12582912.0f;
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float tail = 1.0f / 720 + r * (1.0f / 5040);
    tail = 1.0f / 120 + r * tail;
    tail = 1.0f / 24 + r * tail;
    tail = 1.0f / 6 + r * tail;
    tail = 0.5f + r * tail;
    float power = 1 + r + r * r * tail;
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return power * scale;
}

/// ln(1 + e^x) to about one unit in the last place: max(x, 0) + ln(1 + y) with y = e^−|x|, and the latter is 2 artanh(y / (2 + y)).
inline float softplus(float x) {
    const float y = exponential(x < 0 ? x : -x), s = y / (2 + y), square = s * s;
    float tail = 1.0f / 11 + square * (1.0f / 13);
    tail = 1.0f / 9 + square * tail;
    tail = 1.0f / 7 + square * tail;
    tail = 0.2f + square * tail;
    tail = 1.0f / 3 + square * tail;
    return (x > 0 ? x : 0) + 2 * (s + s * square * tail);
}

/// x / (1 + e^−x) and its derivative.
inline void silu(float x, float &value, float &slope) {
    const float sigmoid = 1 / (1 + exponential(-x));
    value = x * sigmoid;
    slope = sigmoid * (1 + x * (1 - sigmoid));
}

}  // namespace ckernels
