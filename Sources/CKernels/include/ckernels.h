// C interface to some kernels, for the tests. The library calls the C++ headers in `ckernels/`.
#ifndef CKERNELS_H
#define CKERNELS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// 16-bit floats, as bits
void ck_upcast_bf16(const uint16_t *x, float *y, int64_t count);
void ck_upcast_fp16(const uint16_t *x, float *y, int64_t count);
void ck_downcast_to_bf16(const float *x, uint16_t *y, int64_t count);
/// The nearest fp16 of x, within ±65504, as a float.
float ck_rounded_to_fp16(float x);

// Rows
/// softmax(scale · s + bias) in place; the bias may be NULL.
void ck_softmax_row(float *s, const float *bias, int64_t bias_stride, float scale, int64_t count);
/// y = x · (mean(x²) + ε)^−½ · w, [rows, size].
void ck_rms_norm_rows(const float *x, const float *weight, float epsilon, float *y, int64_t rows, int64_t size);
/// The loss of rows of scores; the scores become their gradient.
double ck_loss_rows(float *scores, const int64_t *targets, int64_t rows, int64_t vocabulary, double scale, double smoothing);

typedef enum { CK_RELU, CK_GELU_TANH, CK_SILU } CKGate;
/// y = f(gate) ⊙ up.
void ck_gate_rows(CKGate, const float *gate, const float *up, float *y, int64_t count);

/// y = x ⊙ mask / (1 − p), where the mask is a function of (seed, position).
void ck_drop(const float *x, float *y, int64_t count, double probability, uint64_t seed);

// Recurrences whose memory is a matrix per head: the gated delta rule, or a state space
typedef struct {
    bool is_delta;
    int64_t rows, key_heads, heads, key_size, value_size;
} CKRecurrence;
/// x [tokens, (queries, keys, values)], rates and decays [tokens, heads]. Memories [rows, heads, key size, value size] (of a state
/// space [rows, key heads, key size, heads of a key head, value size]) may be NULL, and changes are those for the backward pass.
void ck_recurrence(CKRecurrence, const int64_t *offsets, const float *x, const float *rates, const float *decays,
                   const float *memories, float *outputs, float *changes, float *last_memories);
/// The gradients, given that w.r.t. the outputs.
void ck_recurrence_backward(CKRecurrence, const int64_t *offsets, const float *x, const float *rates, const float *decays,
                            const float *memories, const float *changes, const float *gradient, float *to_x, float *to_rates,
                            float *to_decays, float *to_memories);

/// A causal convolution of x [tokens, channels] by weight [channels, width], and SiLU of it, with zeros before each sequence.
void ck_short_convolution(const int64_t *offsets, int64_t rows, int64_t channels, int64_t width, const float *x,
                          const float *weight, float *y);
void ck_short_convolution_backward(const int64_t *offsets, int64_t rows, int64_t channels, int64_t width, const float *x,
                                   const float *weight, const float *gradient, float *to_x, float *to_weight);

// Matmuls with few rows of x: y [rows, outputs] = x [rows, inputs] Wᵀ
void ck_multiply_few(const float *weight, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs,
                     const float *bias);
/// The same with W in bf16.
void ck_multiply_few_bf16(const uint16_t *weight, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs);

// Matrices quantized in groups: packed [inputs · bits / 32, outputs], scales and zeros [groups, outputs] in fp32
/// W transposed, [inputs, outputs].
void ck_dequantize_groups(const uint32_t *packed, const float *scales, const float *zeros, int bits, int64_t group_size,
                          int64_t inputs, int64_t outputs, float *dense);
void ck_multiply_groups(const uint32_t *packed, const float *scales, const float *zeros, int bits, int64_t group_size,
                        int64_t inputs, int64_t outputs, const float *x, int64_t rows, float *y);
/// Whether that may multiply integers on this thread, where the processor does so faster; to test the other kernels.
void ck_use_group_integers(bool allowed);
/// Whether kernels on this thread may use 512-bit vectors.
void ck_use_wide_vectors(bool allowed);

// Matrices quantized in blocks
/// NF4 codes, two per byte, and the scale of each block.
void ck_quantize_nf4(const float *weight, int64_t count, int64_t block, uint8_t *codes, float *scales);
/// W [outputs, inputs] from such codes.
void ck_dequantize_nf4(const uint8_t *codes, const float *scales, int64_t block, int64_t outputs, int64_t inputs, float *dense);

#ifdef __cplusplus
}
#endif
#endif
