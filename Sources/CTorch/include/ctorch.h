// C interface to the parts of libtorch that swift-peft uses.
//
// Conventions
// - A function that returns a pointer returns NULL on failure, one that returns `int` returns 0 on success;
//   `ct_last_error` then gives the reason, per thread. No exception crosses this header.
// - Every returned `CTTensor *` is owned by the caller and released with `ct_release`.
// - Shapes are int64_t arrays; token ids and offsets are int64_t.
#ifndef CTORCH_H
#define CTORCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CTTensor CTTensor;
typedef struct CTGradMode CTGradMode;
typedef struct CTAutocast CTAutocast;

typedef enum {
    CT_UINT8 = 0,
    CT_INT8 = 1,
    CT_INT16 = 2,
    CT_INT32 = 3,
    CT_INT64 = 4,
    CT_FLOAT16 = 5,
    CT_FLOAT32 = 6,
    CT_FLOAT64 = 7,
    CT_BOOL = 11,
    CT_BFLOAT16 = 15,
} CTDType;

typedef enum { CT_CPU = 0, CT_CUDA = 1, CT_MPS = 13, CT_META = 14 } CTDevice;

typedef enum { CT_RELU = 0, CT_GELU = 1, CT_GELU_TANH = 2, CT_SILU = 3 } CTActivation;

typedef enum {
    CT_NEG,
    CT_SQRT,
    CT_RSQRT,
    CT_EXP,
    CT_LOG,
    CT_TANH,
    CT_SIGMOID,
    CT_ABS,
    CT_SQUARE,
    CT_ISFINITE,
    CT_SIGN,
    CT_ROUND,
    CT_SIN,
    CT_COS,
    CT_SOFTPLUS,
} CTUnary;

typedef enum { CT_ADD, CT_SUB, CT_MUL, CT_DIV, CT_EQ, CT_NE, CT_LT, CT_GT, CT_MAXIMUM, CT_MINIMUM } CTBinary;

// Runtime
const char *ct_last_error(void);
void ct_set_threads(int threads);
int ct_threads(void);
bool ct_cuda_available(void);
bool ct_mps_available(void);
/// Keeps freed blocks in the process instead of returning each to the system (glibc only), so that the temporaries of
/// the next step don't page-fault again.
void ct_keep_freed_memory(void);
/// libtorch's version, such as "2.13.0".
const char *ct_torch_version(void);
/// Name of the library for large fp32 matmuls on the CPU if it isn't libtorch's own; else "".
const char *ct_blas_name(void);
/// Enables or disables that library for the calling thread's matmuls, for comparisons.
void ct_allow_other_blas(bool allowed);
/// Current and peak bytes of tensors on a device other than the CPU.
int ct_device_memory(CTDevice, int device_index, int64_t *now, int64_t *peak);
/// Current and peak resident bytes of this process.
int ct_process_memory(int64_t *now, int64_t *peak);
/// The processor's name, truncated to `room` bytes including the final 0.
int ct_processor_name(char *name, size_t room);
/// Returns free blocks to the system, if the allocator can.
void ct_trim_memory(void);

/// Starts logging the allocations of tensors on the meta device.
int ct_memory_log_begin(void);
/// Number of events so far: a position in the log.
int64_t ct_memory_log_count(void);
/// Ends the log and copies up to `capacity` events as pairs: (block, bytes) when block `block` > 0 is allocated,
/// (-block, 0) when it is freed; (0, 1) and (0, 0) enclose the allocations of logits. Returns how many.
int64_t ct_memory_log_end(int64_t *pairs, int64_t capacity);

// Lifetime and properties
void ct_release(CTTensor *);
CTTensor *ct_undefined(void);
CTTensor *ct_empty(const int64_t *shape, int rank, CTDType, CTDevice, int device_index);
CTTensor *ct_full(const int64_t *shape, int rank, double value, CTDType, CTDevice, int device_index);
CTTensor *ct_arange(int64_t start, int64_t end, CTDType, CTDevice, int device_index);
CTTensor *ct_from_bytes(const void *bytes, const int64_t *shape, int rank, CTDType);
/// A tensor over external memory; `release(context)` is called when the last view is freed.
CTTensor *ct_from_memory(void *memory, const int64_t *shape, int rank, CTDType, void (*release)(void *), void *context);
int ct_rank(const CTTensor *);
int64_t ct_dim(const CTTensor *, int axis);
int64_t ct_count(const CTTensor *);
CTDType ct_dtype(const CTTensor *);
CTDevice ct_device(const CTTensor *);
int ct_device_index(const CTTensor *);
bool ct_is_contiguous(const CTTensor *);
/// Address of the first element; NULL for a tensor without storage.
void *ct_data(const CTTensor *);
double ct_item(const CTTensor *, bool *ok);
CTTensor *ct_contiguous(const CTTensor *);
CTTensor *ct_clone(const CTTensor *);
CTTensor *ct_to(const CTTensor *, CTDType, CTDevice, int device_index);
/// The values, in float32, of 8-bit floats (e4m3, without infinities) whose codes are the uint8 elements.
CTTensor *ct_float8_values(const CTTensor *codes);
int ct_copy_into(CTTensor *destination, const CTTensor *source);
bool ct_same_bits(const CTTensor *, const CTTensor *);

// Autograd
CTGradMode *ct_grad_mode_enter(bool enabled);
void ct_grad_mode_leave(CTGradMode *);
bool ct_grad_mode_is_enabled(void);
/// Starts autocast on this thread: matmuls on the device run in the given type. NULL if the device doesn't support
/// it.
CTAutocast *ct_autocast_enter(CTDevice, CTDType);
/// Stops autocast on this thread until the scope is left.
CTAutocast *ct_autocast_suspend(CTDevice);
void ct_autocast_leave(CTAutocast *);
bool ct_requires_grad(const CTTensor *);
/// The version of the elements, which in-place operations increment.
int64_t ct_write_count(const CTTensor *);
int ct_set_requires_grad(CTTensor *, bool);
CTTensor *ct_detach(const CTTensor *);
int ct_backward(const CTTensor *loss);
/// NULL without an error where there is no gradient.
CTTensor *ct_grad(const CTTensor *);
int ct_set_grad(CTTensor *, const CTTensor *grad);
/// Activation checkpointing: tensors saved by autograd nodes between the two calls are dropped and recomputed in the
/// backward pass by `again`, which must run the same operations and return 0 on success. `release(context)` is called
/// when `again` can't be called any more.
void ct_recomputed_begin(int (*again)(void *), void (*release)(void *), void *context);
void ct_recomputed_end(void);
/// Whether a checkpointed segment runs on this thread, for the first time or recomputed.
bool ct_is_recomputed(void);
void ct_set_last_error(const char *message);

// Arithmetic
CTTensor *ct_unary(CTUnary, const CTTensor *);
CTTensor *ct_binary(CTBinary, const CTTensor *, const CTTensor *);
CTTensor *ct_binary_scalar(CTBinary, const CTTensor *, double);
CTTensor *ct_pow(const CTTensor *, double);
CTTensor *ct_activation(CTActivation, const CTTensor *);
CTTensor *ct_matmul(const CTTensor *, const CTTensor *);
CTTensor *ct_linear(const CTTensor *x, const CTTensor *weight, const CTTensor *bias);
CTTensor *ct_embedding(const CTTensor *weight, const CTTensor *ids);
CTTensor *ct_sum(const CTTensor *, const int64_t *axes, int count, bool keep);
CTTensor *ct_mean(const CTTensor *, const int64_t *axes, int count, bool keep);
CTTensor *ct_max(const CTTensor *);
CTTensor *ct_argmax(const CTTensor *, int axis);
CTTensor *ct_softmax(const CTTensor *, int axis);
CTTensor *ct_log_softmax(const CTTensor *, int axis);
CTTensor *ct_cumsum(const CTTensor *, int axis);
int ct_topk(const CTTensor *, int64_t k, int axis, CTTensor **values, CTTensor **indices);
int ct_add_in_place(CTTensor *, const CTTensor *, double alpha);
int ct_scale_in_place(CTTensor *, double);
int ct_fill(CTTensor *, double);
/// x[rows[i]][columns[i]] = value, for a matrix.
int ct_set_elements(CTTensor *x, const CTTensor *rows, const CTTensor *columns, double value);

// Shape
CTTensor *ct_reshape(const CTTensor *, const int64_t *shape, int rank);
CTTensor *ct_permute(const CTTensor *, const int64_t *axes, int rank);
CTTensor *ct_transpose(const CTTensor *, int a, int b);
CTTensor *ct_narrow(const CTTensor *, int axis, int64_t start, int64_t length);
/// Consecutive views of the given lengths; their gradients are concatenated.
int ct_split(const CTTensor *, int axis, const int64_t *lengths, int count, CTTensor **parts);
CTTensor *ct_expand(const CTTensor *, const int64_t *shape, int rank);
CTTensor *ct_cat(CTTensor *const *, int count, int axis);
CTTensor *ct_index_select(const CTTensor *, int axis, const CTTensor *ids);
CTTensor *ct_gather(const CTTensor *, int axis, const CTTensor *ids);
CTTensor *ct_where(const CTTensor *condition, const CTTensor *, const CTTensor *);
CTTensor *ct_flip(const CTTensor *, int axis);

CTTensor *ct_index_copy(const CTTensor *, int axis, const CTTensor *ids, const CTTensor *source);

// Linear algebra; leading axes are batches
/// x = u · diag(s) · vh with min(m, n) singular values, largest first.
int ct_svd(const CTTensor *, CTTensor **u, CTTensor **s, CTTensor **vh);
/// x = q · r with orthonormal columns of q.
int ct_qr(const CTTensor *, CTTensor **q, CTTensor **r);
/// The y with a · y = b.
CTTensor *ct_solve(const CTTensor *a, const CTTensor *b);
/// The same of the lower triangle of a with a diagonal of ones; nothing else of a is read.
CTTensor *ct_solve_unit_lower(const CTTensor *a, const CTTensor *b);
CTTensor *ct_eye(int64_t size, CTDType, CTDevice, int device_index);
CTTensor *ct_kron(const CTTensor *, const CTTensor *);
/// The real part of the inverse 2-D Fourier transform of a real matrix.
CTTensor *ct_inverse_fourier_real(const CTTensor *);
/// A multi-layer LSTM over x [length, batch, in]; `weights` as PyTorch lists them: for each layer and direction
/// w_ih, w_hh, b_ih, b_hh. Starts from zeros; dropout off. Returns [length, batch, hidden · directions].
CTTensor *ct_lstm(const CTTensor *x, CTTensor *const *weights, int count, int64_t hidden, int layers, bool bidirectional);

// Random values, each a function of its seed alone
int ct_uniform(CTTensor *, double low, double high, uint64_t seed);
int ct_normal(CTTensor *, double mean, double deviation, uint64_t seed);
CTTensor *ct_multinomial(const CTTensor *probabilities, uint64_t seed);
/// A permutation of 0 … count − 1 (int64), as torch.randperm draws it for a seed.
CTTensor *ct_random_permutation(int64_t count, uint64_t seed);
/// start + weight · (end - start), rounded as torch.lerp.
CTTensor *ct_lerp(const CTTensor *start, const CTTensor *end, double weight);
/// Uniform in [0, 2⁶³ - 1), int64 [count].
CTTensor *ct_random_integers(int64_t count, uint64_t seed);

// Fused operations with custom gradients (see the .cpp files for the equations)
/// x / sqrt(mean(x²) + epsilon) · (offset + weight) over the last axis.
CTTensor *ct_rms_norm(const CTTensor *x, const CTTensor *weight, double epsilon, double offset);
CTTensor *ct_layer_norm(const CTTensor *x, const CTTensor *weight, const CTTensor *bias, double epsilon);
CTTensor *ct_gated_activation(CTActivation, const CTTensor *gate, const CTTensor *up);
/// y + scale · (f(x downᵀ + down_bias) upᵀ + up_bias); x defaults to y where NULL; a trained scale is a tensor of one
/// element that replaces the number.
CTTensor *ct_bottleneck(const CTTensor *y, const CTTensor *x, const CTTensor *down, const CTTensor *down_bias, const CTTensor *up,
                        const CTTensor *up_bias, const CTTensor *learned_scale, double scale, CTActivation);
CTTensor *ct_dropout(const CTTensor *x, double probability, uint64_t seed);
/// RoPE: rotates the first 2p components of each head of x [tokens, heads, size] as pairs (i, i + p), or (2i, 2i + 1) if
/// interleaved, by angles whose cosines and sines are [tokens, p]; the others pass through.
CTTensor *ct_rotary(const CTTensor *x, const CTTensor *cosines, const CTTensor *sines, bool interleaved);
typedef enum { CT_GATED_DELTA, CT_STATE_SPACE } CTRecurrenceKind;
/// A recurrence whose memory is a matrix S per head: S ← e^g (I − β k kᵀ) S + β k vᵀ and o = Sᵀ q / √d with q and k of unit
/// length (the gated delta rule), or S ← e^g S + β k vᵀ and o = Sᵀ q (Mamba-2's state space). Queries, keys and values begin at
/// these columns of rows of `width` columns; each key head serves as many consecutive heads.
typedef struct {
    CTRecurrenceKind kind;
    int64_t key_heads, heads, key_size, value_size, width, queries, keys, values;
} CTRecurrence;
/// Which memories after the last tokens are returned: none, one tensor, or a tensor for each sequence.
typedef enum { CT_NO_MEMORIES, CT_MEMORIES_TOGETHER, CT_MEMORIES_APART } CTMemories;
/// The recurrence along packed sequences in fp32 on the CPU. x is [tokens, width], rates β and decays g are [tokens, heads], skip
/// [heads] are factors of values added to the outputs, or NULL. Memories before the first tokens are tensors of consecutive
/// sequences, [rows, heads, key size, value size], or of a state space [rows, key heads, key size, heads of a key head, value
/// size]; without any they are zeros. Results are the outputs [tokens, heads, value size] and the memories. Returns 0 on success.
int ct_recurrence(const CTTensor *x, const CTTensor *rates, const CTTensor *decays, const CTTensor *skip,
                  const CTTensor *const *memories, int parts, const CTRecurrence *, const int64_t *offsets, int rows, CTMemories,
                  CTTensor **results);
/// β and g of a recurrence from tensors [tokens, heads], in fp32 on the CPU. With s = softplus(decays + shifts) and a = −e^factors,
/// β = sigmoid(rates) and g = a s; or where rates is NULL, β = s, bounded, and g = a β. Returns 0 on success.
int ct_recurrence_gates(const CTTensor *rates, const CTTensor *decays, const CTTensor *factors, const CTTensor *shifts,
                        double lower, double upper, CTTensor **results);
/// A causal convolution of each channel of packed sequences x [tokens, channels] in fp32 or bf16 on the CPU, and SiLU of its outputs
/// if `has_silu`: weight [channels, 1, width], bias [channels] or NULL, and the inputs before the sequences [rows, width − 1,
/// channels], without a gradient, or NULL for zeros.
CTTensor *ct_short_convolution(const CTTensor *x, const CTTensor *weight, const CTTensor *bias, const CTTensor *before,
                               const int64_t *offsets, int rows, bool has_silu);
/// The inputs before the tokens that follow, [rows, width − 1, channels], without a gradient.
CTTensor *ct_last_inputs(const CTTensor *x, int64_t width, const CTTensor *before, const int64_t *offsets, int rows);
/// The root-mean-square normalization of each group of x [tokens, groups · size], scaled by weight [size] or [groups · size] and
/// by silu(gate); or with the gate first that of x ⊙ silu(gate), scaled by the weight. fp32 or bf16 on the CPU.
CTTensor *ct_gated_norm(const CTTensor *x, const CTTensor *gate, const CTTensor *weight, int64_t groups, double epsilon,
                        bool has_gate_first);
/// Attention within each sequence of packed q [tokens, heads, size] and k, v [tokens, key heads, size] (grouped-query
/// attention where key heads < heads). With causal a query sees keys up to its own, with a window > 0 only the last
/// `window` of those; without causal, a window is as many keys in each direction, its own among both. softcap > 0 maps scaled scores s to softcap · tanh(s / softcap)
/// before the bias, which is [heads, queries, keys], laid out for the longest prefix, or [heads, keys from a sequence's
/// first one on] without a gradient. Sinks [heads], unless NULL, are logits of one more key per head, whose value is 0.
CTTensor *ct_packed_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *bias,
                              const int64_t *query_offsets, const int64_t *key_offsets, int rows, bool causal, double scale,
                              double dropout, uint64_t seed, int64_t window, double softcap, const CTTensor *sinks);
/// softmax(cap(scale · q kᵀ) + mask) v over padded sequences, for decode steps. With sinks, which need softcap 0 here, q is
/// [batch, key heads, query heads of one, size].
CTTensor *ct_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *mask, double scale,
                       double softcap, const CTTensor *sinks);
/// Writes x [batch, heads, tokens, size] into a KV cache [batch, heads, capacity, size] from `column` on. Returns 0
/// on success.
int ct_write_columns(const CTTensor *cache, const CTTensor *x, int64_t column);
/// A decode step of `count` sequences with fp32 KV caches of their own, [1, 1, capacity, key heads · size] each, on the CPU:
/// writes row rows[i] of k and v [tokens, key heads, size] at columns[i] of caches i, and row rows[i] of y [tokens, heads, size]
/// = softmax(scale · q kᵀ + bias) v over the columns up to there, with a window > 0 only the last `window` of those. The bias
/// [heads, distances] is that of distances distances − 1 … 0 from the query, or NULL. No gradients. Returns 0 on success.
int ct_decode_sequences(const CTTensor *q, const CTTensor *k, const CTTensor *v, int count, const int64_t *rows,
                        const CTTensor *const *key_caches, const CTTensor *const *value_caches, const int64_t *columns,
                        const CTTensor *bias, int64_t window, double scale, const CTTensor *y);
/// Row i of y [count, heads, size] = softmax(scale · q kᵀ) v with row i of q and the fp32 keys and values i, [tokens, key heads,
/// size] each, on the CPU. No gradients.
CTTensor *ct_attend_sequences(const CTTensor *q, int count, const CTTensor *const *keys, const CTTensor *const *values,
                              double scale);
CTTensor *ct_lora_branch(const CTTensor *y, const CTTensor *x, const CTTensor *a, const CTTensor *b, double scale, double dropout,
                         uint64_t seed);
/// How an adapter changes the rows first ..< end of a projection's output: y = gain ⊙ (y + scale · x aᵀ bᵀ), with a [r, in] and
/// b [out, r], or without them, and gain [out] or none; absent tensors are NULL. `keeps_bias` leaves the projection's bias
/// outside of the gain. With other_a [r, in] and other_b [r, out], b is [r, out], too, and y + scale · x ΔWᵀ has
/// ΔW = (bᵀ a) ∘ (other_bᵀ other_a).
typedef struct {
    int64_t first, end;
    const CTTensor *a, *b, *other_a, *other_b, *gain;
    double scale;
    bool keeps_bias;
} CTRowBranch;
/// Applies branches to disjoint rows of y [tokens, out] in place, for x [tokens, in] and a projection's bias [out] or NULL
/// (RowBranches.cpp). No gradients. Returns 0 on success.
int ct_row_branches(const CTTensor *y, const CTTensor *x, const CTTensor *bias, int count, const CTRowBranch *branches);
/// x [tokens, size] with rows offsets[i] ..< offsets[i + 1] multiplied by gains[i] [size] where that isn't NULL.
CTTensor *ct_scale_rows(const CTTensor *x, int count, const int64_t *offsets, const CTTensor *const *gains);
/// Cross-entropy of the logits scale · (hidden weightᵀ + bias), soft-capped if softcap > 0, in chunks of rows; the bias
/// may be NULL.
CTTensor *ct_linear_cross_entropy(const CTTensor *hidden, const CTTensor *weight, const CTTensor *bias, const CTTensor *targets,
                                  double scale, double label_smoothing, double softcap);

// Optimizers, over lists of equal length
int ct_clip_gradients(CTTensor *const *parameters, int count, double largest_norm, double *norm);
int ct_adamw_step(CTTensor *const *parameters, CTTensor *const *first_moments, CTTensor *const *second_moments, int count,
                  int64_t step, double rate, double beta1, double beta2, double weight_decay, double epsilon);
/// One AdamW step of a parameter with 8-bit moments in blocks of 256 scaled by their absolute maxima: uint8 of the
/// parameter's shape and float32 [⌈n / 256⌉], all on the CPU. The first moments use the signed map.
int ct_adamw_8bit_step(CTTensor *parameter, CTTensor *first, CTTensor *second, CTTensor *first_scales, CTTensor *second_scales,
                       int64_t step, double rate, double beta1, double beta2, double weight_decay, double epsilon);
/// Newton–Schulz iterations in bf16 toward the orthogonal matrix nearest to x [m, n], as in torch.optim.Muon.
CTTensor *ct_orthogonalized(const CTTensor *x, int iterations);
/// The 256 values of the codes, in order.
CTTensor *ct_dynamic_map(bool is_signed);

// Group-wise quantized matrices (GroupQuantized.cpp)
/// W[o, i] = scales[g, o] · (q[i, o] − zeros[g, o]); the integers q of 2, 3, 4 or 8 bits are `packed`, int32 [in · bits / 32,
/// out], lowest bits first along the inputs. The zero points `zeros` are packed likewise along the outputs, plus `zero_offset`, or
/// floats [groups, out]. `order` is each input's group; NULL for i / group_size.
typedef struct {
    const CTTensor *packed, *scales, *zeros, *order;
    int bits, zero_offset;
    int64_t group_size;
} CTGroupMatrix;
/// x [..., in] Wᵀ + bias; differentiable w.r.t. x and the bias.
CTTensor *ct_group_linear(const CTTensor *x, const CTGroupMatrix *, const CTTensor *bias);
/// W, dequantized, [out, in].
CTTensor *ct_group_dense(const CTGroupMatrix *, CTDType);
/// Packs unsigned integers along one axis of a matrix into int32 words, lowest bits first, and back.
CTTensor *ct_pack_bits(const CTTensor *values, int bits, int axis);
CTTensor *ct_unpack_bits(const CTTensor *packed, int bits, int axis);
/// Quantizes weight [out, in] in groups along the inputs: values int32 [in, out], scales and zero points [groups,
/// out]. With the Hessian [in, in] of the layer's squared error, errors are compensated in later columns (GPTQ); NULL
/// rounds to nearest.
int ct_gptq(const CTTensor *weight, const CTTensor *hessian, int bits, int64_t group_size, bool symmetric, double damping,
            CTTensor **values, CTTensor **scales, CTTensor **zeros);
// Quantized matrices (Quantized.cpp, Quantizers.cpp)
typedef enum { CT_NF4 = 0, CT_FP4 = 1 } CTBlockCode;

/// How a matrix is stored.
typedef enum { CT_WEIGHT_BLOCKS = 0, CT_WEIGHT_ROWS = 1, CT_WEIGHT_FLOATS = 2 } CTWeightFormat;

/// W [outputs, inputs], row-major. Blocks: uint8 codes of two 4-bit indices into `table` (16 floats) with one scale per
/// `block` weights, which is scales[b] or nested_table[scales[b]] · nested_scales[b / 256] + offset. Rows: int8 codes
/// with W = codes · scales[row] / 127. Floats: 16-bit codes. Fields that a format doesn't use are NULL.
typedef struct {
    CTWeightFormat format;
    const CTTensor *codes, *scales, *table, *nested_scales, *nested_table;
    double offset;
    int64_t block, outputs, inputs;
} CTStoredMatrix;

/// x [..., inputs] Wᵀ + bias in x's type, by tiles; differentiable w.r.t. x and the bias.
CTTensor *ct_stored_linear(const CTTensor *x, const CTStoredMatrix *, const CTTensor *bias);
/// One of several projections of one input: its matrix, dense if `weight` is given, group-wise quantized if `group.packed` is,
/// otherwise `stored`, and its bias and LoRA branch. Absent fields are NULL.
typedef struct {
    const CTTensor *weight;
    CTStoredMatrix stored;
    CTGroupMatrix group;
    const CTTensor *bias, *a, *b;
    double scale, dropout;
    uint64_t seed;
} CTProjection;
/// x [..., inputs] Wᵀ + bias + scale · drop(x) aᵀ bᵀ for each, fused (Projections.cpp). Returns 0 on success.
int ct_projections(const CTTensor *x, int count, const CTProjection *, CTTensor **results);
/// The matrices [outputs, inputs] of all experts: dense [experts, outputs, inputs], or [experts, inputs, outputs] if it is
/// transposed; or, where `dense` is NULL, group-wise quantized ones, whose parts have a leading
/// dimension of experts; or, where `groups.packed` is NULL, too, a quantized matrix
/// [experts · outputs, inputs].
typedef struct {
    const CTTensor *dense;
    CTStoredMatrix stored;
    CTGroupMatrix groups;
    int64_t experts;
    bool is_transposed;
} CTExpertStack;
/// The assignments of tokens to experts [tokens, k] (int64) ordered by expert, stable: `order`, indices into the flat
/// assignments, int64 [tokens · k], and `offsets` of each expert among them, int64 [experts + 1] on the CPU. Returns 0 on
/// success.
int ct_expert_routing(const CTTensor *assignments, int64_t experts, CTTensor **order, CTTensor **offsets);
/// x W_eᵀ + bias_e + scale · x A_eᵀ B_eᵀ for each row of `order` with its expert e, [tokens · k, outputs]. x is [tokens,
/// inputs] and is gathered (`choices` = k), or [tokens · k, inputs] in that order (`choices` = 0); bias is [experts, outputs],
/// A [experts, rank, inputs], B [experts, outputs, rank], each NULL if absent.
CTTensor *ct_expert_linear(const CTTensor *x, const CTExpertStack *, const CTTensor *bias, const CTTensor *a, const CTTensor *b,
                           double scale, const CTTensor *order, const CTTensor *offsets, int64_t choices);
/// Σⱼ weights[t, j] · y_tj with y [tokens · k, size] in the order of experts and weights [tokens, k] -> [tokens, size].
CTTensor *ct_expert_sum(const CTTensor *y, const CTTensor *weights, const CTTensor *order);
/// W, dequantized, [outputs, inputs].
CTTensor *ct_stored_dense(const CTStoredMatrix *, CTDType);
/// Rows `ids` [...] (int64) of W, dequantized, [..., inputs].
CTTensor *ct_stored_rows(const CTStoredMatrix *, const CTTensor *ids, CTDType);
/// The same as `ct_linear_cross_entropy` with a frozen matrix [vocabulary, size], by tiles.
CTTensor *ct_stored_cross_entropy(const CTTensor *hidden, const CTStoredMatrix *, const CTTensor *bias, const CTTensor *targets,
                                  double scale, double label_smoothing, double softcap);
CTTensor *ct_group_cross_entropy(const CTTensor *hidden, const CTGroupMatrix *, const CTTensor *bias, const CTTensor *targets,
                                 double scale, double label_smoothing, double softcap);
/// The 16 values of the codes.
CTTensor *ct_block_table(CTBlockCode);
/// codes uint8 [⌈n / 2⌉, 1] and scales float32 [⌈n / block⌉] of a tensor of n weights.
int ct_quantize_blocks(const CTTensor *weight, CTBlockCode, int64_t block, CTTensor **codes, CTTensor **scales);
/// Quantizes scales to bytes in blocks of 256 on the signed dynamic map, after subtracting their mean (`offset`).
int ct_quantize_scales(const CTTensor *scales, CTTensor **codes, CTTensor **nested_scales, CTTensor **table, double *offset);
/// codes int8 [out, in] and scales float32 [out], the rows' absolute maxima.
int ct_quantize_rows(const CTTensor *weight, CTTensor **codes, CTTensor **scales);
/// The blocks of a tensor in a quantized type of GGUF files, by its number there, as uint8 [bytes].
CTTensor *ct_encode_gguf(const CTTensor *values, uint32_t type);
/// Whether kernels called on this thread may use 512-bit vectors, if available; to test the other kernels.
void ct_use_wide_vectors(bool allowed);

#ifdef __cplusplus
}
#endif
#endif
