// Recurrences along packed sequences whose memory is a matrix per head: the gated delta rule and Mamba-2's state space.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckernels {

/// What a recurrence computes, and where its inputs are. Each key head serves as many consecutive heads.
struct Recurrence {
    enum class Kind {
        /// S ← e^g (I − β k kᵀ) S + β k vᵀ and o = Sᵀ q / √d, with q and k of unit length (Yang et al. 2024, Gated Delta
        /// Networks, eq. 10). A sequence's memory is [heads, key size, value size].
        gated_delta,
        /// S ← e^g S + β k vᵀ and o = Sᵀ q (Dao & Gu 2024, Mamba-2). A sequence's memory is [key heads, key size, heads of a
        /// key head, value size].
        state_space,
    };

    Kind kind;
    /// Where each sequence starts, and the end.
    std::vector<int64_t> offsets;
    int64_t key_heads, heads, key_size, value_size;
    /// Inputs are [tokens, width], in which queries, keys and values begin at these columns.
    int64_t width, queries, keys, values;

    size_t rows() const { return offsets.size() - 1; }
    int64_t heads_of_a_key() const { return heads / key_heads; }
    int64_t memory_size() const { return heads * key_size * value_size; }
};

struct RecurrenceInputs {
    /// [tokens, width]
    const float *x;
    /// β and g ≤ 0, [tokens, heads].
    const float *rates, *decays;
    /// The memory of each sequence before its first token, NULL for zeros.
    std::vector<const float *> memories;
    /// Factors of the values that are added to the outputs, [heads]; NULL without them.
    const float *skip;
};

/// Overwrites the outputs [tokens, heads, value size]; the memory of each sequence after its last token unless `memories` is
/// empty; and, unless NULL, the changes v − e^g Sᵀ k [tokens, heads, value size], which the backward pass of the gated delta
/// rule needs.
void recurrence(const Recurrence &, const RecurrenceInputs &, float *outputs, float *changes,
                const std::vector<float *> &memories);

/// Gradients w.r.t. the inputs of the same names. All of x that is read is overwritten. `memories` may be empty, `skip` NULL.
struct RecurrenceGradients {
    float *x, *rates, *decays;
    std::vector<float *> memories;
    float *skip;
};

/// - Parameters:
///   - gradient: w.r.t. the outputs.
///   - memory_gradients: w.r.t. the memories after the last tokens; empty for zeros.
void recurrence_backward(const Recurrence &, const RecurrenceInputs &, const float *changes, const float *gradient,
                         const std::vector<const float *> &memory_gradients, const RecurrenceGradients &);

}  // namespace ckernels
