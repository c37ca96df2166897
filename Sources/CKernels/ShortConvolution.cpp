// Each thread computes some channels of all tokens, so that gradients of weights don't depend on the number of threads.
#include "ckernels/ShortConvolution.hpp"

#include <algorithm>
#include <utility>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

using namespace ckernels;

namespace {

/// Minimum elements per thread.
constexpr int64_t grain = 32768;
/// Channels are divided among threads in multiples of it, a cache line.
constexpr int64_t group = 16;

/// sums = bias + Σ taps[t] ⊙ x[t] for `Width` taps.
template <int Width, typename Number>
CK_INLINED void convolve_few(const Number *const *x, const float *taps, const float *bias, int64_t count, float *sums) {
    const Number *sources[Width];
    for (int t = 0; t < Width; ++t) sources[t] = x[t];
    CK_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) {
        float sum = bias[i];
        for (int t = 0; t < Width; ++t) sum += taps[t * count + i] * static_cast<float>(sources[t][i]);
        sums[i] = sum;
    }
}

template <typename Number>
CK_INLINED void convolve(int64_t width, const Number *const *x, const float *taps, const float *bias, int64_t count,
                         float *sums) {
    switch (width) {
        case 2: return convolve_few<2>(x, taps, bias, count, sums);
        case 3: return convolve_few<3>(x, taps, bias, count, sums);
        case 4: return convolve_few<4>(x, taps, bias, count, sums);
        default: break;
    }
    std::copy_n(bias, count, sums);
    for (int64_t t = 0; t < width; ++t) {
        const Number *own = x[t];
        CK_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) sums[i] += taps[t * count + i] * static_cast<float>(own[i]);
    }
}

/// Channels first ..< first + count.
template <typename Number> struct Channels {
    const ShortConvolution<Number> &convolution;
    int64_t first, count;
    /// [width, count], the bias or zeros, a sum for each channel, and zeros.
    std::vector<float> taps, bias, sums;
    std::vector<Number> zeros;
    /// Inputs of a token.
    std::vector<const Number *> sources;

    Channels(const ShortConvolution<Number> &convolution, int64_t first, int64_t count)
        : convolution(convolution), first(first), count(count), taps(static_cast<size_t>(convolution.width * count)),
          bias(static_cast<size_t>(count)), sums(bias), zeros(static_cast<size_t>(count)),
          sources(static_cast<size_t>(convolution.width)) {
        for (int64_t t = 0; t < convolution.width; ++t) {
            for (int64_t i = 0; i < count; ++i) tap(t)[i] = convolution.weight[(first + i) * convolution.width + t];
        }
        if (convolution.bias) std::copy_n(convolution.bias + first, count, bias.begin());
    }

    float *tap(int64_t t) { return taps.data() + t * count; }

    /// The inputs at a place of a sequence, which is negative before its first token.
    CK_INLINED const Number *input(size_t row, int64_t place) const {
        if (place >= 0) return convolution.x + (convolution.offsets[row] + place) * convolution.stride + first;
        if (!convolution.before) return zeros.data();
        const int64_t reach = convolution.width - 1;
        return convolution.before + (static_cast<int64_t>(row) * reach + reach + place) * convolution.channels + first;
    }

    /// The convolution at a place of a sequence, before the activation.
    CK_INLINED void sum(size_t row, int64_t place) {
        for (int64_t t = 0; t < convolution.width; ++t) {
            sources[static_cast<size_t>(t)] = input(row, place - convolution.width + 1 + t);
        }
        convolve(convolution.width, sources.data(), taps.data(), bias.data(), count, sums.data());
    }
};

template <typename Number> struct Forward {
    Channels<Number> own;
    Number *y;

    CK_INLINED void loop() {
        const ShortConvolution<Number> &convolution = own.convolution;
        const int64_t count = own.count;
        for (size_t row = 0; row < convolution.rows(); ++row) {
            for (int64_t token = convolution.offsets[row]; token < convolution.offsets[row + 1]; ++token) {
                own.sum(row, token - convolution.offsets[row]);
                const float *sums = own.sums.data();
                Number *result = y + token * convolution.channels + own.first;
                if (convolution.has_silu) {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < count; ++i) result[i] = rounded<Number>(sums[i] / (1 + exponential(-sums[i])));
                } else {
                    CK_INDEPENDENT
                    for (int64_t i = 0; i < count; ++i) result[i] = rounded<Number>(sums[i]);
                }
            }
        }
    }
};

template <typename Number> struct Backward {
    Channels<Number> own;
    const Number *gradient;
    Number *to_x;
    float *to_weight, *to_bias;
    /// The gradients w.r.t. the sums of the last `width` tokens, [width, count], zeros, and sums of gradients.
    std::vector<float> ring, zeros, to_taps, to_shift;
    std::vector<const float *> sources;

    Backward(Channels<Number> &&channels, const Number *gradient, Number *to_x, float *to_weight, float *to_bias)
        : own(std::move(channels)), gradient(gradient), to_x(to_x), to_weight(to_weight), to_bias(to_bias), ring(own.taps.size()),
          zeros(own.sums.size()), to_taps(to_weight ? ring.size() : 0), to_shift(zeros), sources(own.sources.size()) {}

    CK_INLINED void loop() {
        const ShortConvolution<Number> &convolution = own.convolution;
        const int64_t count = own.count, width = convolution.width, reach = width - 1;
        for (size_t row = 0; row < convolution.rows(); ++row) {
            const int64_t start = convolution.offsets[row], tokens = convolution.offsets[row + 1] - start;
            for (int64_t place = 0; place < (tokens > 0 ? tokens + reach : 0); ++place) {
                float *to_sums = ring.data() + place % width * count;
                if (place < tokens) {
                    differentiate(row, place, to_sums);
                    for (int64_t t = 0; to_weight && t < width; ++t) {
                        const Number *x = own.input(row, place - reach + t);
                        float *to_tap = to_taps.data() + t * count;
                        CK_INDEPENDENT
                        for (int64_t i = 0; i < count; ++i) to_tap[i] += to_sums[i] * static_cast<float>(x[i]);
                    }
                    if (to_bias) {
                        float *sums = to_shift.data();
                        CK_INDEPENDENT
                        for (int64_t i = 0; i < count; ++i) sums[i] += to_sums[i];
                    }
                } else {
                    std::fill_n(to_sums, count, 0.0f);
                }
                // A token's input is part of the sums of those up to `reach` tokens later.
                if (place < reach) continue;
                for (int64_t t = 0; t < width; ++t) {
                    sources[static_cast<size_t>(t)] = ring.data() + (place - t) % width * count;
                }
                convolve(width, sources.data(), own.taps.data(), zeros.data(), count, own.sums.data());
                const float *sums = own.sums.data();
                Number *result = to_x + (start + place - reach) * convolution.channels + own.first;
                CK_INDEPENDENT
                for (int64_t i = 0; i < count; ++i) result[i] = rounded<Number>(sums[i]);
            }
        }
        for (int64_t t = 0; to_weight && t < width; ++t) {
            for (int64_t i = 0; i < count; ++i) {
                to_weight[(own.first + i) * width + t] = to_taps[static_cast<size_t>(t * count + i)];
            }
        }
        if (to_bias) std::copy_n(to_shift.data(), count, to_bias + own.first);
    }

    /// The gradient w.r.t. the sums of a token.
    CK_INLINED void differentiate(size_t row, int64_t place, float *to_sums) {
        const ShortConvolution<Number> &convolution = own.convolution;
        const Number *upstream = gradient + (convolution.offsets[row] + place) * convolution.channels + own.first;
        const int64_t count = own.count;
        if (!convolution.has_silu) {
            CK_INDEPENDENT
            for (int64_t i = 0; i < count; ++i) to_sums[i] = upstream[i];
            return;
        }
        own.sum(row, place);
        const float *sums = own.sums.data();
        CK_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) {
            float value, slope;
            silu(sums[i], value, slope);
            to_sums[i] = static_cast<float>(upstream[i]) * slope;
        }
    }
};

/// target_clones doesn't apply to templates: one function for each type.
#define CK_RUN(...) \
    CK_CLONES void run(__VA_ARGS__ &kernel) { kernel.loop(); }
CK_RUN(Forward<float>)
CK_RUN(Forward<BFloat>)
CK_RUN(Backward<float>)
CK_RUN(Backward<BFloat>)
#undef CK_RUN

/// Calls the body for ranges of channels, on all threads.
template <typename Number, typename Body> void for_channels(const ShortConvolution<Number> &convolution, Body body) {
    const int64_t tokens = convolution.offsets.back(), groups = (convolution.channels + group - 1) / group;
    const int64_t least = std::max<int64_t>(1, grain / (group * std::max<int64_t>(tokens, 1)));
    parallel_for(0, groups, least, [&](int64_t begin, int64_t end) {
        const int64_t first = begin * group;
        body(Channels<Number>(convolution, first, std::min(convolution.channels, end * group) - first));
    });
}

}  // namespace

namespace ckernels {

template <typename Number> void short_convolution(const ShortConvolution<Number> &convolution, Number *y) {
    for_channels(convolution, [&](Channels<Number> &&channels) {
        Forward<Number> kernel{std::move(channels), y};
        run(kernel);
    });
}

template <typename Number>
void short_convolution_backward(const ShortConvolution<Number> &convolution, const Number *gradient, Number *to_x,
                                float *to_weight, float *to_bias) {
    for_channels(convolution, [&](Channels<Number> &&channels) {
        Backward<Number> kernel(std::move(channels), gradient, to_x, to_weight, to_bias);
        run(kernel);
    });
}

template <typename Number> void last_inputs(const ShortConvolution<Number> &convolution, Number *after) {
    const Channels<Number> all(convolution, 0, convolution.channels);
    const int64_t reach = convolution.width - 1;
    for (size_t row = 0; row < convolution.rows(); ++row) {
        const int64_t tokens = convolution.offsets[row + 1] - convolution.offsets[row];
        for (int64_t i = 0; i < reach; ++i, after += convolution.channels) {
            std::copy_n(all.input(row, tokens - reach + i), convolution.channels, after);
        }
    }
}

#define CK_SHORT_CONVOLUTION(NUMBER)                                                                                        \
    template void short_convolution(const ShortConvolution<NUMBER> &, NUMBER *);                                            \
    template void short_convolution_backward(const ShortConvolution<NUMBER> &, const NUMBER *, NUMBER *, float *, float *); \
    template void last_inputs(const ShortConvolution<NUMBER> &, NUMBER *);
CK_SHORT_CONVOLUTION(float)
CK_SHORT_CONVOLUTION(BFloat)
#undef CK_SHORT_CONVOLUTION

}  // namespace ckernels
