// AdamW with 8-bit moments (Dettmers et al. 2022, 8-bit optimizers via block-wise quantization).
#include <cmath>

#include "Bridge.hpp"
#include "DynamicMap.hpp"
#include "Elements.hpp"
#include "ckernels/AdamW8bit.hpp"

using namespace ctorch;
using ckernels::AdamWRates;
using ckernels::DynamicCode;
using ckernels::update_by_adamw;

extern "C" {

CTTensor *ct_dynamic_map(bool is_signed) {
    return tensor_or_error([&] { return dynamic_map(is_signed); });
}

int ct_adamw_8bit_step(CTTensor *parameter, CTTensor *first, CTTensor *second, CTTensor *first_peaks, CTTensor *second_peaks,
                       int64_t step, double rate, double beta1, double beta2, double weight_decay, double epsilon) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        at::Tensor value = unbox(parameter).detach(), gradient = unbox(parameter).grad();
        TORCH_CHECK(gradient.defined(), "a parameter has no gradient");
        const double power1 = std::pow(beta1, step), power2 = std::pow(beta2, step);
        const AdamWRates rates{static_cast<float>(beta1),
                               static_cast<float>(beta2),
                               static_cast<float>(1 - beta1),
                               static_cast<float>(1 - beta2),
                               static_cast<float>(epsilon),
                               static_cast<float>(1 - rate * weight_decay),
                               static_cast<float>(-rate / (1 - power1)),
                               static_cast<float>(std::sqrt(1 - power2))};
        const int64_t count = value.numel(), blocks = (count + DynamicCode::block - 1) / DynamicCode::block;
        TORCH_CHECK(unbox(first).numel() == count && unbox(second).numel() == count && unbox(first_peaks).numel() == blocks &&
                        unbox(second_peaks).numel() == blocks,
                    "8-bit moments and scales don't match the parameter's ", count, " elements");
        if (value.is_meta()) return;
        // The codes are on the CPU; a parameter on another device or of another type is copied there and back.
        at::Tensor numbers = value.to(at::kCPU, at::kFloat).contiguous();
        at::Tensor slopes = gradient.to(at::kCPU, at::kFloat).contiguous();
        update_by_adamw(mutable_floats(numbers), floats(slopes),
                        {dynamic_code(true), mutable_elements<uint8_t>(unbox(first)), mutable_floats(unbox(first_peaks))},
                        {dynamic_code(false), mutable_elements<uint8_t>(unbox(second)), mutable_floats(unbox(second_peaks))},
                        count, rates);
        if (!numbers.is_alias_of(value)) value.copy_(numbers);
    });
}
}
