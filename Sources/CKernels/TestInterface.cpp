// The C interface for the tests, one line each.
#include <vector>

#include "ckernels.h"
#include "ckernels/BlockCodes.hpp"
#include "ckernels/DropoutMask.hpp"
#include "ckernels/FewRows.hpp"
#include "ckernels/GroupProduct.hpp"
#include "ckernels/GroupWeights.hpp"
#include "ckernels/HalfPrecision.hpp"
#include "ckernels/LossRows.hpp"
#include "ckernels/Recurrence.hpp"
#include "ckernels/RowKernels.hpp"
#include "ckernels/ShortConvolution.hpp"
#include "ckernels/SoftmaxRow.hpp"
#include "ckernels/StoredProduct.hpp"

using namespace ckernels;

namespace {

BFloat *bfloats(uint16_t *bits) { return reinterpret_cast<BFloat *>(bits); }
const BFloat *bfloats(const uint16_t *bits) { return reinterpret_cast<const BFloat *>(bits); }

GroupWeights group_weights(const uint32_t *packed, const float *scales, const float *zeros, int bits, int64_t group_size,
                           int64_t inputs, int64_t outputs) {
    return {.packed = packed,
            .scales = {FloatMatrix::Type::fp32, scales},
            .zeros = {FloatMatrix::Type::fp32, zeros},
            .bits = bits,
            .group_size = group_size,
            .inputs = inputs,
            .outputs = outputs,
            .groups = (inputs + group_size - 1) / group_size};
}

Recurrence recurrence_of(const CKRecurrence &given, const int64_t *offsets) {
    const int64_t keys = given.key_heads * given.key_size;
    return {given.is_delta ? Recurrence::Kind::gated_delta : Recurrence::Kind::state_space,
            {offsets, offsets + given.rows + 1},
            given.key_heads,
            given.heads,
            given.key_size,
            given.value_size,
            2 * keys + given.heads * given.value_size,
            0,
            keys,
            2 * keys};
}

/// Pointers to the memory of each sequence; NULL if there are none.
template <typename Float> std::vector<Float *> memories_of(const Recurrence &recurrence, Float *memories) {
    std::vector<Float *> rows;
    for (size_t row = 0; row < recurrence.rows(); ++row) {
        rows.push_back(memories ? memories + static_cast<int64_t>(row) * recurrence.memory_size() : nullptr);
    }
    return rows;
}

ShortConvolution<float> convolution_of(const int64_t *offsets, int64_t rows, int64_t channels, int64_t width, const float *x,
                                       const float *weight) {
    return {{offsets, offsets + rows + 1}, channels, width, true, x, channels, nullptr, weight, nullptr};
}

}  // namespace

extern "C" {

void ck_upcast_bf16(const uint16_t *x, float *y, int64_t count) { upcast(bfloats(x), y, count); }

void ck_upcast_fp16(const uint16_t *x, float *y, int64_t count) { upcast(reinterpret_cast<const Half *>(x), y, count); }

void ck_downcast_to_bf16(const float *x, uint16_t *y, int64_t count) { downcast(x, bfloats(y), count); }

float ck_rounded_to_fp16(float x) { return rounded_to_half(x); }

void ck_softmax_row(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count) {
    softmax_row(s, bias, bias_stride, scale, count);
}

void ck_rms_norm_rows(const float *x, const float *weight, float epsilon, float *y, int64_t rows, int64_t size) {
    std::vector<float> inverse(static_cast<size_t>(rows));
    rms_norm_rows(x, weight, epsilon, y, inverse.data(), rows, size);
}

double ck_loss_rows(float *scores, const int64_t *targets, int64_t rows, int64_t vocabulary, double scale, double smoothing) {
    return loss_rows(scores, targets, rows, vocabulary, scale, smoothing, true);
}

void ck_gate_rows(CKGate kind, const float *gate, const float *up, float *y, int64_t count) {
    gate_rows(kind == CK_RELU ? Gate::relu : kind == CK_SILU ? Gate::silu : Gate::gelu_tanh, gate, up, y, count);
}

void ck_recurrence(CKRecurrence given, const int64_t *offsets, const float *x, const float *rates, const float *decays,
                   const float *memories, float *outputs, float *changes, float *last_memories) {
    const Recurrence own = recurrence_of(given, offsets);
    recurrence(own, {x, rates, decays, memories_of(own, memories), nullptr}, outputs, changes, memories_of(own, last_memories));
}

void ck_recurrence_backward(CKRecurrence given, const int64_t *offsets, const float *x, const float *rates, const float *decays,
                            const float *memories, const float *changes, const float *gradient, float *to_x, float *to_rates,
                            float *to_decays, float *to_memories) {
    const Recurrence own = recurrence_of(given, offsets);
    recurrence_backward(own, {x, rates, decays, memories_of(own, memories), nullptr}, changes, gradient, {},
                        {to_x, to_rates, to_decays, memories_of(own, to_memories), nullptr});
}

void ck_short_convolution(const int64_t *offsets, int64_t rows, int64_t channels, int64_t width, const float *x,
                          const float *weight, float *y) {
    short_convolution(convolution_of(offsets, rows, channels, width, x, weight), y);
}

void ck_short_convolution_backward(const int64_t *offsets, int64_t rows, int64_t channels, int64_t width, const float *x,
                                   const float *weight, const float *gradient, float *to_x, float *to_weight) {
    short_convolution_backward(convolution_of(offsets, rows, channels, width, x, weight), gradient, to_x, to_weight, nullptr);
}

void ck_drop(const float *x, float *y, int64_t count, double probability, uint64_t seed) {
    drop(x, y, count, DropoutMask(probability, seed));
}

void ck_multiply_few(const float *weight, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs,
                     const float *bias) {
    multiply_few(weight, inputs, x, rows, inputs, y, outputs, bias);
}

void ck_multiply_few_bf16(const uint16_t *weight, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs) {
    multiply_stored({.format = StoredWeights::Format::bf16, .codes = weight, .outputs = outputs, .inputs = inputs}, x, rows, y);
}

void ck_dequantize_groups(const uint32_t *packed, const float *scales, const float *zeros, int bits, int64_t group_size,
                          int64_t inputs, int64_t outputs, float *dense) {
    dequantize_tile(group_weights(packed, scales, zeros, bits, group_size, inputs, outputs), 0, inputs, 0, outputs, dense);
}

void ck_multiply_groups(const uint32_t *packed, const float *scales, const float *zeros, int bits, int64_t group_size,
                        int64_t inputs, int64_t outputs, const float *x, int64_t rows, float *y) {
    multiply_groups(group_weights(packed, scales, zeros, bits, group_size, inputs, outputs), x, rows, y);
}

void ck_use_group_integers(bool allowed) { use_group_integers(allowed); }

void ck_use_wide_vectors(bool allowed) { use_wide_vectors(allowed); }

void ck_quantize_nf4(const float *weight, int64_t count, int64_t block, uint8_t *codes, float *scales) {
    quantize_blocks(BlockCode::nf4, weight, count, block, codes, scales);
}

void ck_dequantize_nf4(const uint8_t *codes, const float *scales, int64_t block, int64_t outputs, int64_t inputs, float *dense) {
    dequantize_rows({.format = StoredWeights::Format::blocks,
                     .codes = codes,
                     .scales = scales,
                     .table = block_table(BlockCode::nf4).data(),
                     .block = block,
                     .outputs = outputs,
                     .inputs = inputs},
                    0, outputs, dense);
}
}
