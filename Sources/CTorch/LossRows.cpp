#include "LossRows.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "Clones.hpp"
#include "Exponential.hpp"
#include "Parallel.hpp"

using ctorch::exponential;

namespace {

constexpr int lanes = 32;
/// Minimum logits per thread.
constexpr int64_t grain = 32768;

/// Σ exp(scale · s − most), with the exponentials written over s where they are needed, and Σ scale · s.
struct Sums {
    double exponentials, plain;
};

CT_CLONES void largest_of(const float *s, int64_t count, float scale, float *result) {
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
    float largest = most[0];
    for (float one : most) largest = one > largest ? one : largest;
    *result = largest;
}

/// Blocks are summed in fp32, their sums in double, so that rounding errors don't grow with the vocabulary.
CT_CLONES void exponentials(float *s, int64_t count, float scale, float most, bool keeps, Sums *result) {
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

CT_CLONES void scaled(float *s, int64_t count, float factor, float shift) {
    for (int64_t i = 0; i < count; ++i) s[i] = s[i] * factor + shift;
}

}  // namespace

namespace ctorch {

bool is_for_loss_rows(const at::Tensor &scores, const at::Tensor &targets) {
    return (scores.is_cpu() || scores.is_meta()) && scores.scalar_type() == at::kFloat && scores.dim() == 2 &&
           scores.is_contiguous() && scores.size(1) > 0 && targets.scalar_type() == at::kLong &&
           targets.device() == scores.device();
}

void loss_rows(at::Tensor &scores, const at::Tensor &given, double scale, double smoothing, bool makes_gradient,
               at::Tensor &total) {
    if (scores.is_meta()) return;
    const int64_t vocabulary = scores.size(1), rows = scores.size(0);
    const at::Tensor ids = given.contiguous();
    const auto *targets = static_cast<const int64_t *>(ids.const_data_ptr());
    for (int64_t row = 0; row < rows; ++row) {
        TORCH_CHECK(targets[row] >= 0 && targets[row] < vocabulary, "target ", targets[row],
                    " is out of range for a vocabulary of ", vocabulary);
    }
    auto *all = static_cast<float *>(scores.mutable_data_ptr());
    std::vector<double> losses(static_cast<size_t>(rows));
    const double count = static_cast<double>(vocabulary);
    ctorch::parallel_for(0, rows, std::max<int64_t>(1, grain / vocabulary), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            float *s = all + row * vocabulary, most;
            largest_of(s, vocabulary, static_cast<float>(scale), &most);
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
    total += sum;
}

}  // namespace ctorch
