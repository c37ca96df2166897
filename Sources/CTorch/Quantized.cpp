// Projections by quantized matrices without a full dense copy: tiles of some rows are dequantized, multiplied and
// discarded, in the backward pass too (otherwise the autograd graph would keep every dense copy alive).
#include "Quantized.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "Precision.hpp"
#include "Recomputation.hpp"
#include "TileProduct.hpp"
#include "ckernels/StoredProduct.hpp"

using namespace ctorch;

namespace ctorch {

void StoredMatrix::check() const {
    TORCH_CHECK(outputs > 0 && inputs > 0, "a stored matrix of shape [", outputs, ", ", inputs, "] is empty");
    if (has_blocks()) {
        TORCH_CHECK(block > 0, "the block size must be positive (got ", block, ")");
        TORCH_CHECK(codes.scalar_type() == at::kByte, "4-bit codes must be uint8 (got ", codes.scalar_type(), ")");
        TORCH_CHECK(codes.numel() == (count() + 1) / 2, codes.numel(), " bytes for ", count(), " 4-bit codes");
        TORCH_CHECK(table.numel() == 16 && table.scalar_type() == at::kFloat, "the code table must be 16 float32 values (got ",
                    table.numel(), " ", table.scalar_type(), ")");
        TORCH_CHECK(scales.numel() == blocks(), scales.numel(), " scales for ", blocks(), " blocks");
        if (nested_scales.defined()) {
            TORCH_CHECK(scales.scalar_type() == at::kByte && nested_scales.scalar_type() == at::kFloat &&
                            nested_scales.numel() == (blocks() + 255) / 256 && nested_table.numel() == 256 &&
                            nested_table.scalar_type() == at::kFloat,
                        "nested scales don't match ", blocks(), " blocks");
        } else {
            TORCH_CHECK(scales.scalar_type() == at::kFloat, "scales must be float32 (got ", scales.scalar_type(), ")");
        }
    } else if (has_rows()) {
        TORCH_CHECK(codes.scalar_type() == at::kChar, "codes of rows must be int8 (got ", codes.scalar_type(), ")");
        TORCH_CHECK(codes.numel() == count(), codes.numel(), " int8 codes for ", count(), " weights");
        TORCH_CHECK(scales.numel() == outputs && scales.scalar_type() == at::kFloat, scales.numel(), " scales for ", outputs,
                    " rows");
    } else {
        TORCH_CHECK(at::isFloatingType(codes.scalar_type()) && codes.numel() == count(), codes.numel(), " floats for ", count(),
                    " weights");
    }
}

ckernels::StoredWeights StoredMatrix::weights() const {
    using Format = ckernels::StoredWeights::Format;
    ckernels::StoredWeights w{
        .format = Format::fp32, .codes = codes.const_data_ptr(), .block = block, .outputs = outputs, .inputs = inputs};
    if (has_blocks()) {
        w.format = Format::blocks;
        w.table = floats(table);
        if (nested_scales.defined()) {
            w.scale_codes = elements<uint8_t>(scales);
            w.nested_scales = floats(nested_scales);
            w.nested_table = floats(nested_table);
            w.offset = static_cast<float>(offset);
        } else {
            w.scales = floats(scales);
        }
        return w;
    }
    if (has_rows()) {
        w.format = Format::rows;
        w.scales = floats(scales);
        return w;
    }
    switch (codes.scalar_type()) {
        case at::kHalf: w.format = Format::fp16; break;
        case at::kBFloat16: w.format = Format::bf16; break;
        case at::kFloat: break;
        case at::kDouble: w.format = Format::fp64; break;
        default: TORCH_CHECK(false, "a stored matrix of ", codes.scalar_type(), " has no kernel on the CPU");
    }
    return w;
}

at::Tensor StoredMatrix::block_scales(int64_t first, int64_t end) const {
    at::Tensor part = scales.reshape({-1}).slice(0, first, end);
    if (!nested_scales.defined()) return part;
    at::Tensor group = at::arange(first, end, nested_scales.options().dtype(at::kLong)).floor_divide_(256);
    return nested_table.index_select(0, part.to(at::kLong)).mul_(nested_scales.index_select(0, group)).add_(offset);
}

}  // namespace ctorch

namespace {

/// Elements per tile on other devices, where launching many small matmuls costs more than memory.
constexpr int64_t device_tile_elements = 16777216;

/// Dequantizes rows of W with libtorch's operations, for devices without a kernel here.
at::Tensor plain_rows(const StoredMatrix &w, int64_t first, int64_t count, at::ScalarType type) {
    at::Tensor codes = w.codes.reshape({-1});
    const int64_t start = first * w.inputs, end = start + count * w.inputs;
    if (w.has_rows()) {
        at::Tensor scales = w.scales.reshape({-1, 1}).slice(0, first, first + count) / 127.0;
        return (codes.slice(0, start, end).view({count, w.inputs}).to(at::kFloat) * scales).to(type);
    }
    if (!w.has_blocks()) return codes.slice(0, start, end).view({count, w.inputs}).to(type);
    if (start % w.block == 0 && end % w.block == 0 && w.block % 2 == 0) {
        // A byte holds two codes; one lookup in a table of 256 pairs decodes both.
        at::Tensor high = w.table.repeat_interleave(16), low = w.table.repeat({16});
        at::Tensor pairs = at::stack({high, low}, 1).view(at::kDouble).reshape({256});
        at::Tensor values = pairs.index_select(0, codes.slice(0, start / 2, end / 2).to(at::kInt)).view(at::kFloat);
        at::Tensor scales = w.block_scales(start / w.block, end / w.block).unsqueeze(1);
        at::Tensor rows = at::empty({count * w.inputs / w.block, w.block}, values.options().dtype(type));
        at::mul_out(rows, values.view(rows.sizes()), scales);
        return rows.view({count, w.inputs});
    }
    // Complete blocks and bytes first, then the requested rows.
    const int64_t step = w.block % 2 == 0 ? w.block : 2 * w.block;
    const int64_t from = start / step * step, to = std::min((end + step - 1) / step * step, w.count());
    at::Tensor bytes = codes.slice(0, from / 2, (to + 1) / 2);
    at::Tensor indices = at::stack({bytes.bitwise_right_shift(4), bytes.bitwise_and(15)}, 1).reshape({-1});
    at::Tensor values = w.table.index_select(0, indices.to(at::kInt)).slice(0, 0, to - from);
    at::Tensor scales = w.block_scales(from / w.block, (to + w.block - 1) / w.block);
    scales = scales.unsqueeze(1).expand({-1, w.block}).reshape({-1}).slice(0, 0, to - from);
    return (values * scales).slice(0, start - from, end - from).view({count, w.inputs}).to(type);
}

/// Calls `body(first, count, tile)` for tiles [count, inputs] of rows start ..< end of W in `like`'s type; one at a time is
/// allocated.
template <typename Body>
void for_tiles(const StoredMatrix &w, int64_t start, int64_t end, const at::Tensor &like, Body body) {
    const bool on_cpu = like.is_cpu() || like.is_meta();
    const int64_t elements = on_cpu ? tile_elements(like.size(0)) : device_tile_elements;
    const int64_t rows = std::min(end - start, std::max<int64_t>(32, elements / w.inputs / 32 * 32));
    at::Tensor memory;
    if (on_cpu) memory = at::empty({rows, w.inputs}, like.options().dtype(at::kFloat));
    for (int64_t first = start; first < end; first += rows) {
        const int64_t count = std::min(rows, end - first);
        if (!on_cpu) {
            body(first, count, plain_rows(w, first, count, like.scalar_type()));
            continue;
        }
        at::Tensor tile = memory.narrow(0, 0, count);
        if (like.is_cpu()) ckernels::dequantize_rows(w.weights(), first, count, mutable_floats(memory));
        body(first, count, tile.to(like.scalar_type()));
    }
}

template <typename Body> void for_tiles(const StoredMatrix &w, const at::Tensor &like, Body body) {
    for_tiles(w, 0, w.outputs, like, body);
}

}  // namespace

namespace ctorch {

at::Tensor StoredMatrix::product(const at::Tensor &given) const {
    at::Tensor x = given.is_cpu() ? given.contiguous() : given;
    at::Tensor y = at::empty({x.size(0), outputs}, x.options());
    if (x.is_cpu() && x.scalar_type() == at::kFloat && x.size(0) <= ckernels::few_stored_rows) {
        ckernels::multiply_stored(weights(), floats(x), x.size(0), mutable_floats(y));
        return y;
    }
    multiply_rows(x, 0, outputs, y);
    return y;
}

void StoredMatrix::multiply_rows(const at::Tensor &given, int64_t first_row, int64_t rows, at::Tensor &y) const {
    at::Tensor x = given.is_cpu() ? given.contiguous() : given;
    for_tiles(*this, first_row, first_row + rows, x, [&](int64_t first, int64_t count, const at::Tensor &tile) {
        if (x.is_meta()) return;
        at::Tensor part = y.narrow(1, first - first_row, count);
        ctorch::product(part, x, tile, true, false);
    });
}

at::Tensor StoredMatrix::transposed_product(const at::Tensor &given) const {
    at::Tensor gradient = given.is_cpu() ? given.contiguous() : given;
    at::Tensor result = at::empty({gradient.size(0), inputs}, gradient.options());
    multiply_rows_transposed(gradient, 0, outputs, result);
    return result;
}

void StoredMatrix::multiply_rows_transposed(const at::Tensor &given, int64_t first_row, int64_t rows, at::Tensor &result) const {
    at::Tensor gradient = given.is_cpu() ? given.contiguous() : given;
    for_tiles(*this, first_row, first_row + rows, gradient, [&](int64_t first, int64_t count, const at::Tensor &tile) {
        if (gradient.is_meta()) return;
        ctorch::product(result, gradient.narrow(1, first - first_row, count), tile, false, first > first_row);
    });
}

StoredMatrix stored_matrix(const CTStoredMatrix *m) {
    StoredMatrix w{m->format, unbox(m->codes), unbox(m->scales), unbox(m->table), unbox(m->nested_scales), unbox(m->nested_table),
                   m->offset, m->block,        m->outputs,       m->inputs};
    w.check();
    // The kernels use raw pointers.
    for (at::Tensor *part : {&w.codes, &w.scales, &w.table, &w.nested_scales, &w.nested_table}) {
        if (part->defined()) *part = part->contiguous();
    }
    return w;
}

}  // namespace ctorch

namespace {

/// Rows `ids` [n] of W, dequantized, [n, inputs].
at::Tensor some_rows(const StoredMatrix &w, const at::Tensor &ids, at::ScalarType type) {
    TORCH_CHECK(ids.scalar_type() == at::kLong, "ids must be int64 (got ", ids.scalar_type(), ")");
    if (w.codes.is_cpu() && (w.has_blocks() || w.has_rows())) {
        at::Tensor known = ids.contiguous(), rows = at::empty({ids.size(0), w.inputs}, w.codes.options().dtype(at::kFloat));
        const ckernels::StoredWeights weights = w.weights();
        const auto *places = elements<int64_t>(known);
        float *out = mutable_floats(rows);
        for (int64_t i = 0; i < known.size(0); ++i) {
            TORCH_CHECK(places[i] >= 0 && places[i] < w.outputs, "id ", places[i], " is out of range for ", w.outputs, " rows");
            ckernels::dequantize_rows(weights, places[i], 1, out + i * w.inputs);
        }
        return rows.to(type);
    }
    if (!w.has_blocks()) {
        at::Tensor rows = w.codes.view({w.outputs, w.inputs}).index_select(0, ids);
        if (!w.has_rows()) return rows.to(type);
        return (rows.to(at::kFloat) * (w.scales.reshape({-1, 1}).index_select(0, ids) / 127.0)).to(type);
    }
    if (ids.is_meta()) return at::empty({ids.size(0), w.inputs}, ids.options().dtype(type));
    // The blocks that contain the rows, then the rows.
    if (w.inputs % w.block != 0 || w.inputs % 2 != 0 || w.nested_scales.defined()) {
        return plain_rows(w, 0, w.outputs, at::kFloat).index_select(0, ids).to(type);
    }
    StoredMatrix part = w;
    part.codes = w.codes.reshape({w.outputs, -1}).index_select(0, ids).reshape({-1, 1});
    part.scales = w.scales.reshape({w.outputs, -1}).index_select(0, ids).reshape({-1});
    part.outputs = ids.size(0);
    return plain_rows(part, 0, part.outputs, type);
}

/// y = x Wᵀ + b, x [tokens, inputs]. Saves only what the model holds anyway, and not x.
struct StoredLinear : AutogradNode {
    explicit StoredLinear(StoredMatrix weight) : weight(std::move(weight)) {}

    /// Of x and b, which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        at::Tensor y = weight.product(inputs[0]);
        if (inputs[1].defined()) y.add_(inputs[1]);
        if (context) {
            context->save({weight.codes, weight.scales, weight.table, weight.nested_scales, weight.nested_table});
            weight.codes = weight.scales = weight.table = weight.nested_scales = weight.nested_table = at::Tensor();
        }
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        Tensors results(2);
        if (context.needs_gradient(0)) {
            const Tensors saved = context.saved();
            StoredMatrix w = weight;
            w.codes = saved[0];
            w.scales = saved[1];
            w.table = saved[2];
            w.nested_scales = saved[3];
            w.nested_table = saved[4];
            results[0] = w.transposed_product(gradients[0]);
        }
        if (context.needs_gradient(1)) results[1] = gradients[0].sum(0);
        return results;
    }

private:
    /// In the backward pass without the tensors that are saved.
    StoredMatrix weight;
};

}  // namespace

extern "C" {

CTTensor *ct_stored_linear(const CTTensor *x, const CTStoredMatrix *stored, const CTTensor *bias) {
    return tensor_or_error([&]() -> at::Tensor {
        StoredMatrix w = stored_matrix(stored);
        const at::Tensor &input = unbox(x);
        TORCH_CHECK(input.dim() > 0 && input.size(-1) == w.inputs, "an input of shape ", input.sizes(), " for a matrix with ",
                    w.inputs, " inputs");
        if (recomputation_is_complete()) return unasked_product(input, w.outputs);
        KeepsSaved keeps(true);
        auto shape = input.sizes().vec();
        shape.back() = w.outputs;
        const at::ScalarType type = compute_type(input);
        WithoutAutocast guard;
        at::Tensor flat = in_type(input.reshape({-1, w.inputs}), type);
        at::Tensor y = applied(StoredLinear(w), {flat, in_type(unbox(bias), type)});
        return y.reshape(shape);
    });
}

CTTensor *ct_stored_dense(const CTStoredMatrix *stored, CTDType type) {
    return tensor_or_error([&]() -> at::Tensor {
        StoredMatrix w = stored_matrix(stored);
        at::Tensor whole = at::empty({w.outputs, w.inputs}, w.codes.options().dtype(scalar_type(type)).requires_grad(false));
        at::NoGradGuard guard;
        for_tiles(w, whole, [&](int64_t first, int64_t count, const at::Tensor &tile) {
            if (!whole.is_meta()) whole.narrow(0, first, count).copy_(tile);
        });
        return whole;
    });
}

CTTensor *ct_stored_rows(const CTStoredMatrix *stored, const CTTensor *indices, CTDType type) {
    return tensor_or_error([&]() -> at::Tensor {
        StoredMatrix w = stored_matrix(stored);
        at::NoGradGuard guard;
        const at::Tensor &ids = unbox(indices);
        auto shape = ids.sizes().vec();
        shape.push_back(w.inputs);
        return some_rows(w, ids.reshape({-1}), scalar_type(type)).reshape(shape);
    });
}
}
