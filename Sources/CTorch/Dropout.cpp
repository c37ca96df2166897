#include "Dropout.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/ones.h>


#include "Bridge.hpp"
#include "Clones.hpp"
#include "Parallel.hpp"

namespace {

/// A bijective 32-bit hash ("lowbias32", Wellons 2018), keyed before and between its rounds.
inline uint32_t mix(uint32_t x, uint32_t key, uint32_t second_key) {
    x ^= key;
    x ^= x >> 16;
    x *= 0x7feb352dU;
    x ^= x >> 15;
    x += second_key;
    x *= 0x846ca68bU;
    x ^= x >> 16;
    return x;
}

/// Applies elements first ..< first + count of the mask.
CT_CLONES void drop_float(const float *x, float *y, int64_t first, int64_t count, uint32_t key, uint32_t second_key,
                          uint32_t threshold, float factor) {
    const uint32_t start = static_cast<uint32_t>(first);
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits = mix(start + static_cast<uint32_t>(i), key, second_key);
        y[i] = bits < threshold ? 0.0f : x[i] * factor;
    }
}

CT_CLONES void drop_bfloat16(const uint16_t *x, uint16_t *y, int64_t begin, int64_t end, uint32_t key,
                             uint32_t second_key, uint32_t threshold, float factor) {
    for (int64_t i = begin; i < end; ++i) {
        uint32_t bits = mix(static_cast<uint32_t>(i), key, second_key);
        float value = __builtin_bit_cast(float, static_cast<uint32_t>(x[i]) << 16) * factor;
        // Round to nearest, ties to even.
        uint32_t wide = __builtin_bit_cast(uint32_t, value);
        wide += 0x7fff + (wide >> 16 & 1);
        y[i] = bits < threshold ? 0 : static_cast<uint16_t>(wide >> 16);
    }
}

CT_CLONES void drop_double(const double *x, double *y, int64_t begin, int64_t end, uint32_t key, uint32_t second_key,
                           uint32_t threshold, double factor) {
    for (int64_t i = begin; i < end; ++i) {
        uint32_t bits = mix(static_cast<uint32_t>(i), key, second_key);
        y[i] = bits < threshold ? 0.0 : x[i] * factor;
    }
}

/// Threshold on the hash below which an element is dropped.
uint32_t threshold_of(double probability) {
    const double scaled = probability * 4294967296.0;
    return scaled >= 4294967295.0 ? UINT32_MAX : static_cast<uint32_t>(scaled);
}

double factor_of(double probability) { return probability < 1 ? 1 / (1 - probability) : 0; }

void drop(const at::Tensor &x, at::Tensor &y, double probability, uint64_t seed) {
    const uint32_t threshold = threshold_of(probability);
    const uint32_t key = static_cast<uint32_t>(seed), second_key = static_cast<uint32_t>(seed >> 32);
    const double factor = factor_of(probability);
    ctorch::parallel_for(0, x.numel(), 65536, [&](int64_t begin, int64_t end) {
        // Untyped, since the typed accessors' symbol names differ between compilers in some versions of libtorch.
        const void *from = x.const_data_ptr();
        void *to = y.mutable_data_ptr();
        if (x.scalar_type() == at::kFloat) {
            drop_float(static_cast<const float *>(from) + begin, static_cast<float *>(to) + begin, begin, end - begin, key,
                       second_key, threshold, static_cast<float>(factor));
        } else if (x.scalar_type() == at::kBFloat16) {
            drop_bfloat16(static_cast<const uint16_t *>(from), static_cast<uint16_t *>(to), begin, end, key,
                          second_key, threshold, static_cast<float>(factor));
        } else {
            drop_double(static_cast<const double *>(from), static_cast<double *>(to), begin, end, key, second_key,
                        threshold, factor);
        }
    });
}

bool has_kernel(const at::Tensor &x) {
    return x.is_cpu() && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble ||
                          x.scalar_type() == at::kBFloat16);
}

/// For devices and types without a kernel: the GPU's generator, reseeded for each mask; otherwise the factors are
/// computed on the CPU and copied.
at::Tensor factors(const at::Tensor &x, double probability, uint64_t seed) {
    if (x.is_cuda()) {
        at::Generator generator = at::globalContext().defaultGenerator(x.device()).clone();
        generator.set_current_seed(seed);
        return at::empty_like(x).bernoulli_(1 - probability, generator).mul_(factor_of(probability));
    }
    at::Tensor ones = at::ones(x.sizes(), at::dtype(at::kFloat));
    drop(ones, ones, probability, seed);
    return ones.to(x.device(), x.scalar_type());
}

}  // namespace

namespace ctorch {

at::Tensor dropped(const at::Tensor &x, double probability, uint64_t seed) {
    if (x.is_meta()) return at::empty_like(x);
    if (!has_kernel(x)) return x * factors(x, probability, seed);
    at::Tensor source = x.contiguous();
    at::Tensor result = at::empty_like(source);
    drop(source, result, probability, seed);
    return result;
}

void drop_part(const float *x, float *y, int64_t first, int64_t count, double probability, uint64_t seed) {
    drop_float(x, y, first, count, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), threshold_of(probability),
               static_cast<float>(factor_of(probability)));
}

void drop_in_place(at::Tensor &x, double probability, uint64_t seed) {
    if (has_kernel(x)) {
        drop(x, x, probability, seed);
    } else if (!x.is_meta()) {
        x.mul_(factors(x, probability, seed));
    }
}

}  // namespace ctorch
