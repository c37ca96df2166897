// Projections by group-wise quantized matrices (GPTQ's layout) without a full dense copy: tiles are dequantized,
// multiplied and discarded, in the backward pass too.
#include "GroupQuantized.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bitwise_left_shift.h>
#include <ATen/ops/bitwise_right_shift.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"
#include "Precision.hpp"
#include "Recomputation.hpp"
#include "TileProduct.hpp"
#include "ckernels/GroupProduct.hpp"

using namespace ctorch;

namespace ctorch {

void GroupMatrix::check() const {
    TORCH_CHECK(bits == 2 || bits == 3 || bits == 4 || bits == 8, "unsupported bit width ", bits, ", not 2, 3, 4 or 8");
    TORCH_CHECK(packed.dim() == 2 && packed.scalar_type() == at::kInt, "packed weights must be an int32 matrix (got ",
                packed.sizes(), " ", packed.scalar_type(), ")");
    TORCH_CHECK(packed.size(0) > 0 && packed.size(0) * 32 % bits == 0, packed.size(0), " packed words don't hold ", bits,
                "-bit values");
    TORCH_CHECK(group_size > 0, "the group size must be positive (got ", group_size, ")");
    TORCH_CHECK(scales.dim() == 2 && scales.size(1) == outputs() && at::isFloatingType(scales.scalar_type()),
                "scales must be a floating-point matrix [groups, ", outputs(), "] (got ", scales.sizes(), ")");
    TORCH_CHECK(order.defined() || groups() >= (inputs() + group_size - 1) / group_size, groups(), " groups of ", group_size,
                " for ", inputs(), " inputs");
    TORCH_CHECK(zeros.dim() == 2 && zeros.size(0) == groups(), "zero points must have ", groups(), " rows, one per group (got ",
                zeros.sizes(), ")");
    TORCH_CHECK(has_packed_zeros() ? zeros.size(1) * 32 == outputs() * bits
                                   : at::isFloatingType(zeros.scalar_type()) && zeros.size(1) == outputs(),
                "zero points of shape ", zeros.sizes(), " for ", outputs(), " outputs of ", bits, " bits");
    if (order.defined()) {
        TORCH_CHECK(order.dim() == 1 && order.size(0) == inputs() && order.scalar_type() == at::kInt,
                    "the group indices must be int32 [", inputs(), "] (got ", order.sizes(), " ", order.scalar_type(), ")");
    }
}

ckernels::GroupWeights GroupMatrix::weights() const {
    const auto floats_of = [](const at::Tensor &x) -> ckernels::FloatMatrix {
        using Type = ckernels::FloatMatrix::Type;
        const at::ScalarType type = x.scalar_type();
        return {type == at::kHalf ? Type::fp16 : type == at::kFloat ? Type::fp32 : Type::fp64, x.const_data_ptr()};
    };
    ckernels::GroupWeights w{.packed = elements<uint32_t>(packed),
                             .scales = floats_of(scales),
                             .bits = bits,
                             .group_size = group_size,
                             .zero_offset = zero_offset,
                             .inputs = inputs(),
                             .outputs = outputs(),
                             .groups = groups()};
    if (has_packed_zeros()) w.packed_zeros = elements<uint32_t>(zeros);
    else w.zeros = floats_of(zeros);
    if (order.defined()) w.order = elements<int32_t>(order);
    return w;
}

GroupMatrix group_matrix(const at::Tensor &packed, const at::Tensor &scales, const at::Tensor &zeros, const at::Tensor &order,
                         int bits, int64_t group_size, int zero_offset) {
    GroupMatrix w{packed.contiguous(), scales.contiguous(), zeros.contiguous(), order, bits, group_size, zero_offset};
    w.check();
    if (w.order.defined()) {
        w.order = w.order.contiguous();
        if (w.order.is_cpu()) {
            const auto *groups = static_cast<const int32_t *>(w.order.const_data_ptr());
            for (int64_t i = 0; i < w.inputs(); ++i) {
                TORCH_CHECK(groups[i] >= 0 && groups[i] < w.groups(), "input ", i, " has group index ", groups[i],
                            ", out of range for ", w.groups(), " groups");
            }
        }
    }
    // The kernels read fp16, fp32 and fp64.
    if (w.scales.scalar_type() == at::kBFloat16) w.scales = w.scales.to(at::kFloat);
    if (w.zeros.scalar_type() == at::kBFloat16) w.zeros = w.zeros.to(at::kFloat);
    return w;
}

GroupMatrix group_matrix(const CTGroupMatrix *given) {
    return group_matrix(unbox(given->packed), unbox(given->scales), unbox(given->zeros), unbox(given->order), given->bits,
                        given->group_size, given->zero_offset);
}

at::Tensor pack_bits(const at::Tensor &values, int bits, int64_t axis) {
    TORCH_CHECK(values.dim() == 2 && values.size(axis) * bits % 32 == 0, "values of shape ", values.sizes(),
                " don't fill int32 words of ", bits, "-bit values along axis ", axis);
    at::Tensor rows = (axis == 0 ? values : values.t()).to(at::kLong);
    const int64_t per_block = bits == 3 ? 32 : 32 / bits, words = bits == 3 ? 3 : 1, columns = rows.size(1);
    rows = rows.reshape({-1, per_block, columns});
    at::Tensor packed = at::zeros({rows.size(0), words, columns}, rows.options());
    for (int64_t k = 0; k < per_block; ++k) {
        const int64_t word = k * bits / 32, shift = k * bits % 32;
        at::Tensor shifted = at::bitwise_left_shift(rows.select(1, k), shift);
        packed.select(1, word).bitwise_or_(shifted.bitwise_and(0xffffffffLL));
        if (shift + bits > 32) packed.select(1, word + 1).bitwise_or_(at::bitwise_right_shift(shifted, 32));
    }
    // Words above 2³¹ are negative as int32.
    at::Tensor flat = packed.reshape({-1, columns});
    flat = at::where(flat.ge(1LL << 31), flat - (1LL << 32), flat).to(at::kInt);
    return (axis == 0 ? flat : flat.t()).contiguous();
}

at::Tensor unpack_bits(const at::Tensor &packed, int bits, int64_t axis) {
    TORCH_CHECK(packed.dim() == 2 && packed.size(axis) * 32 % bits == 0, "words of shape ", packed.sizes(), " don't hold ", bits,
                "-bit values");
    at::Tensor rows = (axis == 0 ? packed : packed.t()).to(at::kLong).bitwise_and(0xffffffffLL);
    const int64_t per_block = bits == 3 ? 32 : 32 / bits, words = bits == 3 ? 3 : 1, columns = rows.size(1);
    rows = rows.reshape({-1, words, columns});
    std::vector<at::Tensor> values;
    for (int64_t k = 0; k < per_block; ++k) {
        const int64_t word = k * bits / 32, shift = k * bits % 32;
        at::Tensor value = at::bitwise_right_shift(rows.select(1, word), shift);
        if (shift + bits > 32) value = value.bitwise_or(at::bitwise_left_shift(rows.select(1, word + 1), 32 - shift));
        values.push_back(value.bitwise_and((1LL << bits) - 1));
    }
    at::Tensor flat = at::stack(values, 1).reshape({-1, columns}).to(at::kInt);
    return (axis == 0 ? flat : flat.t()).contiguous();
}

}  // namespace ctorch

namespace {

/// The full matrix transposed, [inputs, outputs], from libtorch's operations, for devices without a kernel here.
at::Tensor transposed(const GroupMatrix &w, at::ScalarType type) {
    at::Tensor group = w.order.defined() ? w.order.to(at::kLong)
                                         : at::arange(w.inputs(), w.packed.options().dtype(at::kLong)).floor_divide(w.group_size);
    at::Tensor zeros = w.has_packed_zeros()
                           ? unpack_bits(w.zeros, w.bits, 1).add(w.zero_offset).bitwise_and((1 << w.bits) - 1).to(type)
                           : w.zeros.to(type);
    at::Tensor q = unpack_bits(w.packed, w.bits, 0).to(type);
    return q.sub_(zeros.index_select(0, group)).mul_(w.scales.to(type).index_select(0, group));
}

bool has_kernel(const GroupMatrix &w, at::ScalarType type) {
    return w.packed.is_cpu() && (type == at::kFloat || type == at::kDouble);
}

/// x in a type that the kernels have: they dequantize to floats, whatever the type of x.
at::Tensor in_kernel_type(const GroupMatrix &w, const at::Tensor &x) {
    return in_type(x, x.is_cpu() && !has_kernel(w, x.scalar_type()) ? at::kFloat : x.scalar_type());
}

/// Dequantizes inputs first ..< first + count of outputs start ..< start + width to `tile` [count, width].
void dequantize_tile(const GroupMatrix &w, int64_t first, int64_t count, int64_t start, int64_t width, at::Tensor &tile) {
    if (tile.scalar_type() == at::kDouble) {
        ckernels::dequantize_tile(w.weights(), first, count, start, width, mutable_elements<double>(tile));
    } else {
        ckernels::dequantize_tile(w.weights(), first, count, start, width, mutable_floats(tile));
    }
}

/// Calls `body(first, count, start, width, tile)` for tiles [count, width] that cover the matrix; one tile at a time
/// is allocated.
template <typename Body> void for_tiles(const GroupMatrix &w, const at::Tensor &like, Body body) {
    const int64_t inputs = w.inputs(), outputs = w.outputs(), elements = tile_elements(like.size(0));
    // Wide enough for GEMM, then as long as fits.
    const int64_t width = std::min(outputs, std::max<int64_t>(128, elements / inputs / 32 * 32));
    const int64_t length = std::min(inputs, std::max<int64_t>(32, elements / width / 32 * 32));
    at::Tensor memory = at::empty({length * width}, like.options());
    for (int64_t start = 0; start < outputs; start += width) {
        const int64_t columns = std::min(width, outputs - start);
        for (int64_t first = 0; first < inputs; first += length) {
            const int64_t rows = std::min(length, inputs - first);
            at::Tensor tile = memory.narrow(0, 0, rows * columns).view({rows, columns});
            if (!like.is_meta()) dequantize_tile(w, first, rows, start, columns, tile);
            body(first, rows, start, columns, tile);
        }
    }
}

}  // namespace

namespace ctorch {

void multiply(const GroupMatrix &w, const at::Tensor &given, at::Tensor &y) {
    at::Tensor x = given.is_cpu() ? given.contiguous() : given;
    if (x.size(0) == 0) return;
    if (x.is_meta()) {
        for_tiles(w, x, [](int64_t, int64_t, int64_t, int64_t, const at::Tensor &) {});
    } else if (!has_kernel(w, x.scalar_type())) {
        y.copy_(at::mm(x, transposed(w, x.scalar_type())));
    } else if (x.scalar_type() == at::kFloat && ckernels::GroupProduct::supports(w.weights()) &&
               x.size(0) <= ckernels::GroupProduct::most_rows(w.weights())) {
        ckernels::multiply_groups(w.weights(), floats(x), x.size(0), mutable_floats(y));
    } else {
        for_tiles(w, x, [&](int64_t first, int64_t count, int64_t start, int64_t width, const at::Tensor &tile) {
            at::Tensor part = y.narrow(1, start, width);
            product(part, x.narrow(1, first, count), tile, false, first > 0);
        });
    }
}

void multiply_transposed(const GroupMatrix &w, const at::Tensor &given, at::Tensor &result) {
    at::Tensor gradient = given.is_cpu() ? given.contiguous() : given;
    if (!gradient.is_meta() && !has_kernel(w, gradient.scalar_type())) {
        result.copy_(at::mm(gradient, transposed(w, gradient.scalar_type()).t()));
        return;
    }
    for_tiles(w, gradient, [&](int64_t first, int64_t count, int64_t start, int64_t width, const at::Tensor &tile) {
        if (gradient.is_meta()) return;
        at::Tensor part = result.narrow(1, first, count);
        product(part, gradient.narrow(1, start, width), tile, true, start > 0);
    });
}

at::Tensor product(const GroupMatrix &w, const at::Tensor &given) {
    const at::Tensor x = in_kernel_type(w, given);
    at::Tensor y = at::empty({x.size(0), w.outputs()}, x.options());
    multiply(w, x, y);
    return y;
}

at::Tensor transposed_product(const GroupMatrix &w, const at::Tensor &given) {
    const at::Tensor gradient = in_kernel_type(w, given);
    at::Tensor result = at::empty({gradient.size(0), w.inputs()}, gradient.options());
    multiply_transposed(w, gradient, result);
    return result;
}

}  // namespace ctorch

namespace {

/// y = x Wᵀ, x [tokens, in]. Saves the packed integers, which the model holds anyway, and not x.
struct GroupLinear : AutogradNode {
    explicit GroupLinear(GroupMatrix weight) : weight(std::move(weight)) {}

    /// Of x, and of the scales and zero points, which may require gradients that are not computed.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        at::Tensor y = product(weight, inputs[0]);
        if (context) {
            context->save({weight.packed, weight.scales, weight.zeros});
            weight.packed = weight.scales = weight.zeros = at::Tensor();
        }
        return {y};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        if (!context.needs_gradient(0)) return {};
        const Tensors saved = context.saved();
        GroupMatrix w = weight;
        w.packed = saved[0];
        w.scales = saved[1];
        w.zeros = saved[2];
        return {transposed_product(w, gradients[0])};
    }

private:
    /// In the backward pass without the tensors that are saved.
    GroupMatrix weight;
};

}  // namespace

extern "C" {

CTTensor *ct_group_linear(const CTTensor *x, const CTGroupMatrix *matrix, const CTTensor *bias) {
    return tensor_or_error([&]() -> at::Tensor {
        GroupMatrix w = group_matrix(matrix);
        const at::Tensor &input = unbox(x);
        TORCH_CHECK(input.dim() > 0 && input.size(-1) == w.inputs(), "an input of shape ", input.sizes(), " for a matrix with ",
                    w.inputs(), " inputs");
        if (recomputation_is_complete()) return unasked_product(input, w.outputs());
        KeepsSaved keeps(true);
        auto shape = input.sizes().vec();
        shape.back() = w.outputs();
        const at::ScalarType type = compute_type(input);
        WithoutAutocast guard;
        at::Tensor flat = in_kernel_type(w, in_type(input.reshape({-1, input.size(-1)}), type));
        at::Tensor y = applied(GroupLinear(w), {flat});
        y = in_type(y, type).reshape(shape);
        return bias && unbox(bias).defined() ? y + in_type(unbox(bias), type) : y;
    });
}

CTTensor *ct_group_dense(const CTGroupMatrix *matrix, CTDType type) {
    return tensor_or_error([&]() -> at::Tensor {
        GroupMatrix w = group_matrix(matrix);
        const at::ScalarType wanted = scalar_type(type);
        if (w.packed.is_meta()) return at::empty({w.outputs(), w.inputs()}, w.packed.options().dtype(wanted));
        const at::ScalarType computed = wanted == at::kDouble ? at::kDouble : at::kFloat;
        if (!has_kernel(w, computed)) return transposed(w, computed).t().to(wanted).contiguous();
        at::Tensor dense = at::empty({w.outputs(), w.inputs()}, w.packed.options().dtype(wanted));
        at::Tensor like = at::empty({0}, w.packed.options().dtype(computed));
        for_tiles(w, like, [&](int64_t first, int64_t count, int64_t start, int64_t width, const at::Tensor &tile) {
            dense.narrow(0, start, width).narrow(1, first, count).copy_(tile.t());
        });
        return dense;
    });
}

CTTensor *ct_pack_bits(const CTTensor *values, int bits, int axis) {
    return tensor_or_error([&] { return pack_bits(unbox(values), bits, axis); });
}

CTTensor *ct_unpack_bits(const CTTensor *packed, int bits, int axis) {
    return tensor_or_error([&] { return unpack_bits(unbox(packed), bits, axis); });
}
}
