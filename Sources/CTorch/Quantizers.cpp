// Quantizers whose codes are bit-identical to bitsandbytes' on a CPU.
#include <algorithm>

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include "Bridge.hpp"
#include "DynamicMap.hpp"
#include "Elements.hpp"
#include "ckernels/BlockCodes.hpp"
#include "ckernels/GGUFBlocks.hpp"

using namespace ctorch;
using ckernels::BlockCode;

namespace {

BlockCode block_code(CTBlockCode kind) { return kind == CT_NF4 ? BlockCode::nf4 : BlockCode::fp4; }

}  // namespace

extern "C" {

CTTensor *ct_block_table(CTBlockCode kind) {
    return tensor_or_error([&] {
        const auto &table = ckernels::block_table(block_code(kind));
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
        ckernels::quantize_blocks(block_code(kind), floats(numbers), count, block, mutable_elements<uint8_t>(packed),
                                  mutable_floats(largest));
        *codes = box(packed);
        *scales = box(largest);
    });
}

int ct_quantize_scales(const CTTensor *scales, CTTensor **codes, CTTensor **nested_scales, CTTensor **table, double *offset) {
    return status_or_error([&] {
        at::NoGradGuard guard;
        const at::Tensor &all = unbox(scales);
        at::Tensor mean = all.mean(), numbers = (all - mean).contiguous(), map = dynamic_map(true);
        const int64_t count = numbers.numel(), blocks = (count + 255) / 256;
        at::Tensor bytes = at::empty({count}, at::kByte), peaks = at::empty({blocks}, at::kFloat);
        const float *values = floats(numbers);
        auto *indices = mutable_elements<uint8_t>(bytes);
        float *largest = mutable_floats(peaks);
        for (int64_t b = 0; b < blocks; ++b) {
            const int64_t start = b * 256, length = std::min<int64_t>(256, count - start);
            largest[b] = dynamic_code(true).quantize(values + start, length, indices + start);
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

CTTensor *ct_encode_gguf(const CTTensor *values, uint32_t type) {
    return tensor_or_error([&] {
        const auto kind = static_cast<ckernels::GGUFBlocks>(type);
        const int64_t bytes = ckernels::gguf_block_bytes(kind), size = ckernels::gguf_block_values(kind);
        at::Tensor numbers = unbox(values).detach().to(at::kCPU, at::kFloat).contiguous();
        TORCH_CHECK(bytes > 0, "type ", type, " of GGUF files can't be written");
        TORCH_CHECK(numbers.dim() > 0 && numbers.size(-1) % size == 0, "rows of ", numbers.sizes(), " aren't blocks of ", size,
                    " values");
        at::Tensor blocks = at::empty({numbers.numel() / size * bytes}, at::kByte);
        ckernels::encode_gguf(kind, floats(numbers), numbers.numel(), mutable_elements<uint8_t>(blocks));
        return blocks;
    });
}
}
