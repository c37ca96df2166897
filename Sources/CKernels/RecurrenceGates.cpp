#include "ckernels/RecurrenceGates.hpp"

#include <algorithm>
#include <vector>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

using namespace ckernels;

namespace {

/// Minimum elements per thread.
constexpr int64_t grain = 8192;

CK_INLINED float sigmoid(float x) { return 1 / (1 + exponential(-x)); }

/// a = −e^factors of each head.
std::vector<float> slopes_of(const RecurrenceGates &gates) {
    std::vector<float> slopes(static_cast<size_t>(gates.heads));
    for (int64_t head = 0; head < gates.heads; ++head) slopes[static_cast<size_t>(head)] = -exponential(gates.factors[head]);
    return slopes;
}

/// Tokens first ..< end.
CK_CLONES void compute(const RecurrenceGates &gates, const float *slopes, int64_t first, int64_t end, float *rates,
                       float *decays) {
    for (int64_t token = first; token < end; ++token) {
        const float *given = gates.decays + token * gates.heads;
        float *own_rates = rates + token * gates.heads, *own_decays = decays + token * gates.heads;
        if (gates.rates) {
            const float *logits = gates.rates + token * gates.heads;
            CK_INDEPENDENT
            for (int64_t i = 0; i < gates.heads; ++i) {
                own_rates[i] = sigmoid(logits[i]);
                own_decays[i] = slopes[i] * softplus(given[i] + gates.shifts[i]);
            }
        } else {
            CK_INDEPENDENT
            for (int64_t i = 0; i < gates.heads; ++i) {
                const float step = std::min(std::max(softplus(given[i] + gates.shifts[i]), gates.lower), gates.upper);
                own_rates[i] = step;
                own_decays[i] = slopes[i] * step;
            }
        }
    }
}

/// Tokens first ..< end. `to_factors` [tokens, heads] receives the terms of the gradients w.r.t. the factors, unless NULL.
CK_CLONES void differentiate(const RecurrenceGates &gates, const float *slopes, int64_t first, int64_t end,
                             const float *rate_gradient, const float *decay_gradient, float *to_rates, float *to_decays,
                             float *to_factors) {
    for (int64_t token = first; token < end; ++token) {
        const int64_t place = token * gates.heads;
        const float *given = gates.decays + place, *by_rate = rate_gradient + place, *by_decay = decay_gradient + place;
        float *own = to_decays + place, *factors = to_factors ? to_factors + place : nullptr;
        if (gates.rates) {
            const float *logits = gates.rates + place;
            for (int64_t i = 0; to_rates && i < gates.heads; ++i) {
                const float rate = sigmoid(logits[i]);
                to_rates[place + i] = by_rate[i] * rate * (1 - rate);
            }
            CK_INDEPENDENT
            for (int64_t i = 0; i < gates.heads; ++i) own[i] = by_decay[i] * slopes[i] * sigmoid(given[i] + gates.shifts[i]);
            for (int64_t i = 0; factors && i < gates.heads; ++i) {
                factors[i] = by_decay[i] * slopes[i] * softplus(given[i] + gates.shifts[i]);
            }
        } else {
            for (int64_t i = 0; i < gates.heads; ++i) {
                const float sum = given[i] + gates.shifts[i], step = softplus(sum);
                const bool is_free = step >= gates.lower && step <= gates.upper;
                own[i] = is_free ? (by_rate[i] + by_decay[i] * slopes[i]) * sigmoid(sum) : 0.0f;
                if (factors) factors[i] = by_decay[i] * slopes[i] * std::min(std::max(step, gates.lower), gates.upper);
            }
        }
    }
}

/// Σ over tokens.
void sum_tokens(const float *x, int64_t tokens, int64_t heads, float *sums) {
    std::fill_n(sums, heads, 0.0f);
    for (int64_t token = 0; token < tokens; ++token) {
        for (int64_t head = 0; head < heads; ++head) sums[head] += x[token * heads + head];
    }
}

}  // namespace

namespace ckernels {

void recurrence_gates(const RecurrenceGates &gates, float *rates, float *decays) {
    const std::vector<float> slopes = slopes_of(gates);
    parallel_for(0, gates.tokens, std::max<int64_t>(1, grain / gates.heads),
                 [&](int64_t begin, int64_t end) { compute(gates, slopes.data(), begin, end, rates, decays); });
}

void recurrence_gates_backward(const RecurrenceGates &gates, const float *rate_gradient, const float *decay_gradient,
                               float *to_rates, float *to_decays, float *to_factors, float *to_shifts) {
    const std::vector<float> slopes = slopes_of(gates);
    std::vector<float> by_factor(static_cast<size_t>(to_factors ? gates.tokens * gates.heads : 0));
    parallel_for(0, gates.tokens, std::max<int64_t>(1, grain / gates.heads), [&](int64_t begin, int64_t end) {
        differentiate(gates, slopes.data(), begin, end, rate_gradient, decay_gradient, to_rates, to_decays,
                      to_factors ? by_factor.data() : nullptr);
    });
    if (to_factors) sum_tokens(by_factor.data(), gates.tokens, gates.heads, to_factors);
    if (to_shifts) sum_tokens(to_decays, gates.tokens, gates.heads, to_shifts);
}

}  // namespace ckernels
