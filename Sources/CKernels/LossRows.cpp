#include "ckernels/LossRows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

using ckernels::exponential;
using ckernels::largest_of;

namespace {

constexpr int lanes = 32;
/// Minimum logits per thread.
constexpr int64_t grain = 32768;

/// Σ exp(scale · s − most), with the exponentials written over s where they are needed, and Σ scale · s.
struct Sums {
    double exponentials, plain;
};

CK_CLONES void find_largest(const float *s, int64_t count, float scale, float *result) {
    float most[lanes];
    for (float &one : most) one = -std::numeric_limits<float>::infinity();
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (int k = 0; k < lanes; ++k) {
            const float x = s[i + k] * scale;
            most[k] = x > most[k] ? x : most[k];
        }
    }
    for (; i < count; ++i) most[0] = s[i] * scale > most[0] ? s[i] * scale : most[0];
    *result = largest_of(most);
}

/// Blocks are summed in fp32, their sums in double, so that rounding errors don't grow with the vocabulary.
CK_CLONES void exponentials(float *s, int64_t count, float scale, float most, bool keeps, Sums *result) {
    constexpr int64_t block = 4096;
    *result = {0, 0};
    for (int64_t start = 0; start < count; start += block) {
        const int64_t end = start + block < count ? start + block : count;
        float sums[lanes] = {}, plain[lanes] = {};
        int64_t i = start;
        for (; i + lanes <= end; i += lanes) {
            for (int k = 0; k < lanes; ++k) {
                const float x = s[i + k] * scale - most;
                const float power = x < -87.0f ? 0.0f : exponential(x);
                sums[k] += power;
                plain[k] += x;
                s[i + k] = keeps ? power : s[i + k];
            }
        }
        for (; i < end; ++i) {
            const float x = s[i] * scale - most;
            const float power = x < -87.0f ? 0.0f : exponential(x);
            sums[0] += power;
            plain[0] += x;
            s[i] = keeps ? power : s[i];
        }
        for (float one : sums) result->exponentials += one;
        for (float one : plain) result->plain += one;
    }
}

CK_CLONES void scaled(float *s, int64_t count, float factor, float shift) {
    for (int64_t i = 0; i < count; ++i) s[i] = s[i] * factor + shift;
}

}  // namespace

namespace ckernels {

double loss_rows(float *scores, const int64_t *targets, int64_t rows, int64_t vocabulary, double scale, double smoothing,
                 bool makes_gradient) {
    std::vector<double> losses(static_cast<size_t>(rows));
    const double count = static_cast<double>(vocabulary);
    parallel_for(0, rows, std::max<int64_t>(1, grain / vocabulary), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            float *s = scores + row * vocabulary, most;
            find_largest(s, vocabulary, static_cast<float>(scale), &most);
            // Relative to the maximum, like all of these.
            const double logit = s[targets[row]] * static_cast<float>(scale) - most;
            Sums sums;
            exponentials(s, vocabulary, static_cast<float>(scale), most, makes_gradient, &sums);
            const double normalizer = std::log(sums.exponentials);
            losses[static_cast<size_t>(row)] =
                (1 - smoothing) * (normalizer - logit) + (smoothing > 0 ? smoothing * (normalizer - sums.plain / count) : 0);
            if (!makes_gradient) continue;
            scaled(s, vocabulary, static_cast<float>(scale / sums.exponentials), static_cast<float>(-smoothing * scale / count));
            s[targets[row]] += static_cast<float>((smoothing - 1) * scale);
        }
    });
    double sum = 0;
    for (double loss : losses) sum += loss;
    return sum;
}

}  // namespace ckernels
