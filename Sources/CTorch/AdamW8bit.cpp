// AdamW with 8-bit moments (Dettmers et al. 2022, 8-bit optimizers via block-wise quantization).
#include <cmath>

#include "Bridge.hpp"
#include "DynamicMap.hpp"
#include "Parallel.hpp"

using namespace ctorch;

namespace {

struct Rates {
    float beta1, beta2, rest1, rest2, epsilon, decay, step, root;
};

/// One block of 256 moments at a time is dequantized to fp32.
void update(float *values, const float *gradients, uint8_t *first, uint8_t *second, float *first_peaks,
            float *second_peaks, int64_t count, const Rates &rates) {
    constexpr int64_t size = DynamicCode::block;
    const DynamicCode &with_signs = DynamicCode::shared(true), &without = DynamicCode::shared(false);
    const int64_t blocks = (count + size - 1) / size;
    parallel_for(0, blocks, 64, [&](int64_t from, int64_t to) {
        float m[size], v[size];
        for (int64_t b = from; b < to; ++b) {
            const int64_t start = b * size, length = std::min(size, count - start);
            const float peak1 = first_peaks[b], peak2 = second_peaks[b];
            for (int64_t i = 0; i < length; ++i) {
                m[i] = with_signs.number(first[start + i]) * peak1;
                v[i] = without.number(second[start + i]) * peak2;
            }
            const float *g = gradients + start;
            float *x = values + start;
            for (int64_t i = 0; i < length; ++i) {
                m[i] = m[i] * rates.beta1 + rates.rest1 * g[i];
                v[i] = v[i] * rates.beta2 + rates.rest2 * g[i] * g[i];
                const float size_of_step = std::sqrt(v[i]) / rates.root + rates.epsilon;
                x[i] = x[i] * rates.decay + rates.step * (m[i] / size_of_step);
            }
            first_peaks[b] = with_signs.quantize(m, length, first + start);
            second_peaks[b] = without.quantize(v, length, second + start);
        }
    });
}

}  // namespace

extern "C" {

CTTensor *ct_dynamic_map(bool is_signed) {
    return tensor_or_error([&] { return dynamic_map(is_signed); });
}

int ct_adamw_8bit_step(CTTensor *parameter, CTTensor *first, CTTensor *second, CTTensor *first_peaks,
                       CTTensor *second_peaks, int64_t step, double rate, double beta1, double beta2,
                       double weight_decay, double epsilon) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        at::Tensor value = unbox(parameter).detach(), gradient = unbox(parameter).grad();
        TORCH_CHECK(gradient.defined(), "a parameter has no gradient");
        const double power1 = std::pow(beta1, step), power2 = std::pow(beta2, step);
        const Rates rates{static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(1 - beta1),
                          static_cast<float>(1 - beta2), static_cast<float>(epsilon),
                          static_cast<float>(1 - rate * weight_decay), static_cast<float>(-rate / (1 - power1)),
                          static_cast<float>(std::sqrt(1 - power2))};
        const int64_t count = value.numel(), blocks = (count + DynamicCode::block - 1) / DynamicCode::block;
        TORCH_CHECK(unbox(first).numel() == count && unbox(second).numel() == count &&
                        unbox(first_peaks).numel() == blocks && unbox(second_peaks).numel() == blocks,
                    "8-bit moments and scales don't match the parameter's ", count, " elements");
        if (value.is_meta()) return;
        // The codes are on the CPU; a parameter on another device or of another type is copied there and back.
        at::Tensor numbers = value.to(at::kCPU, at::kFloat).contiguous();
        at::Tensor slopes = gradient.to(at::kCPU, at::kFloat).contiguous();
        update(static_cast<float *>(numbers.mutable_data_ptr()), static_cast<const float *>(slopes.const_data_ptr()),
               static_cast<uint8_t *>(unbox(first).mutable_data_ptr()),
               static_cast<uint8_t *>(unbox(second).mutable_data_ptr()),
               static_cast<float *>(unbox(first_peaks).mutable_data_ptr()),
               static_cast<float *>(unbox(second_peaks).mutable_data_ptr()), count, rates);
        if (!numbers.is_alias_of(value)) value.copy_(numbers);
    });
}

}
