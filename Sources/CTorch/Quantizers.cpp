// Quantizers whose codes are bit-identical to bitsandbytes' on a CPU.
#include <algorithm>
#include <array>
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "Parallel.hpp"
#include "Bridge.hpp"
#include "DynamicMap.hpp"

using namespace ctorch;

namespace {

/// NormalFloat's values in order (Dettmers et al. 2023, appendix E), as the exact decimal expansions of their floats.
constexpr std::array<float, 16> normal_floats = {
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};

/// FP4: a sign, two exponent bits and one fraction bit, over the maximum: twelfths of 0, 1/16, 8, 12, 4, 6, 2 and 3.
constexpr std::array<float, 16> small_floats = {
    0.0f,  0.0625f / 12.0f,  8.0f / 12.0f,  1.0f,  4.0f / 12.0f,  0.5f,  2.0f / 12.0f,  0.25f,
    0.0f, -0.0625f / 12.0f, -8.0f / 12.0f, -1.0f, -4.0f / 12.0f, -0.5f, -2.0f / 12.0f, -0.25f,
};

/// Codes in ascending order of their values. (Of FP4's two zeros the positive one comes first.)
constexpr std::array<uint8_t, 16> normal_order = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
constexpr std::array<uint8_t, 16> small_order = {11, 10, 13, 12, 15, 14, 9, 0, 8, 1, 6, 7, 4, 5, 2, 3};

struct Code {
    std::array<float, 16> table;
    std::array<uint8_t, 16> order;
    std::array<float, 15> midpoints;

    explicit Code(CTBlockCode kind)
        : table(kind == CT_NF4 ? normal_floats : small_floats), order(kind == CT_NF4 ? normal_order : small_order),
          midpoints() {
        for (size_t i = 0; i < 15; ++i) midpoints[i] = (table[order[i]] + table[order[i + 1]]) / 2;
    }

    /// The code of the nearest value; ties go to the lower one.
    uint8_t nearest(float value) const {
        size_t index = 0;
        for (float midpoint : midpoints) index += value > midpoint ? 1 : 0;
        return order[index];
    }
};

}  // namespace

extern "C" {

CTTensor *ct_block_table(CTBlockCode kind) {
    return tensor_or_error([&] {
        const auto &table = kind == CT_NF4 ? normal_floats : small_floats;
        return at::tensor(at::ArrayRef<float>(table.data(), table.size()));
    });
}

int ct_quantize_blocks(const CTTensor *weight, CTBlockCode kind, int64_t block, CTTensor **codes, CTTensor **scales) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        TORCH_CHECK(block > 0 && block % 2 == 0, "the block size must be positive and even (got ", block, ")");
        at::Tensor numbers = unbox(weight).detach().to(at::kCPU, at::kFloat).contiguous();
        const int64_t count = numbers.numel(), blocks = (count + block - 1) / block;
        at::Tensor packed = at::empty({(count + 1) / 2, 1}, at::kByte), largest = at::empty({blocks}, at::kFloat);
        const auto *values = static_cast<const float *>(numbers.const_data_ptr());
        auto *bytes = static_cast<uint8_t *>(packed.mutable_data_ptr());
        auto *peaks = static_cast<float *>(largest.mutable_data_ptr());
        const Code code(kind);
        ctorch::parallel_for(0, blocks, 1024, [&](int64_t from, int64_t to) {
            for (int64_t b = from; b < to; ++b) {
                const int64_t start = b * block, end = std::min(count, start + block);
                float peak = 0;
                for (int64_t i = start; i < end; ++i) peak = std::max(peak, std::fabs(values[i]));
                const bool is_whole = end - start == block;
                // bitsandbytes stores 1e-38 for a last block of zeros, and divides there instead of multiplying.
                if (!is_whole) peak = std::max(peak, 1e-38f);
                peaks[b] = peak;
                const float inverse = 1.0f / std::max(peak, 1e-38f);
                auto scaled = [&](int64_t i) {
                    if (i >= count) return 0.0f;
                    return std::clamp(is_whole ? values[i] * inverse : values[i] / peak, -1.0f, 1.0f);
                };
                for (int64_t i = start; i < end; i += 2) {
                    bytes[i / 2] = static_cast<uint8_t>(code.nearest(scaled(i)) << 4 | code.nearest(scaled(i + 1)));
                }
            }
        });
        *codes = box(packed);
        *scales = box(largest);
    });
}

int ct_quantize_scales(const CTTensor *scales, CTTensor **codes, CTTensor **nested_scales, CTTensor **table,
                       double *offset) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        const at::Tensor &all = unbox(scales);
        at::Tensor mean = all.mean(), numbers = (all - mean).contiguous(), map = dynamic_map(true);
        const int64_t count = numbers.numel(), blocks = (count + 255) / 256;
        at::Tensor bytes = at::empty({count}, at::kByte), peaks = at::empty({blocks}, at::kFloat);
        const auto *values = static_cast<const float *>(numbers.const_data_ptr());
        auto *indices = static_cast<uint8_t *>(bytes.mutable_data_ptr());
        auto *largest = static_cast<float *>(peaks.mutable_data_ptr());
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t start = b * 256, length = std::min<int64_t>(256, count - start);
            largest[b] = DynamicCode::shared(true).quantize(values + start, length, indices + start);
        }
        *offset = mean.item().toDouble();
        *codes = box(bytes);
        *nested_scales = box(peaks);
        *table = box(map);
    });
}

int ct_quantize_rows(const CTTensor *weight, CTTensor **codes, CTTensor **scales) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        TORCH_CHECK(unbox(weight).dim() == 2, "expected a matrix (got ", unbox(weight).sizes(), ")");
        at::Tensor matrix = unbox(weight).detach();
        const int64_t rows = matrix.size(0), size = matrix.size(1);
        at::Tensor rounded = at::empty({rows, size}, at::kChar), scale = at::empty({rows}, at::kFloat);
        // In chunks of rows: an embedding table in fp16 is large compared with its codes.
        const int64_t step = std::max<int64_t>(1, (4 << 20) / std::max<int64_t>(1, size));
        for (int64_t first = 0; first < rows; first += step) {
            const int64_t count = std::min(step, rows - first);
            // Rounded to fp16 first, as bitsandbytes' module does.
            at::Tensor numbers = matrix.narrow(0, first, count).to(at::kCPU, at::kHalf);
            at::Tensor peaks = std::get<0>(numbers.abs().max(1)).to(at::kFloat);
            // Division as Python divides a number by a tensor, with two roundings.
            at::Tensor factors = peaks.reciprocal().mul_(127.0).unsqueeze(1);
            // An all-zero row: 0 · ∞.
            rounded.narrow(0, first, count).copy_((numbers * factors).nan_to_num(0, 127, -127).round_());
            scale.narrow(0, first, count).copy_(peaks);
        }
        *codes = box(rounded);
        *scales = box(scale);
    });
}

}
