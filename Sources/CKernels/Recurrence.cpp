// Chunked recurrences (Yang et al. 2024, section 3.3; Dao & Gu 2024, section 6), one sequence and head per work item of a
// thread. All matrices of a chunk stay in the L1 and L2 caches.
//
// Within a chunk, whose first memory is S, let G be the sums of g from its start, D[i, j] = exp(G[i] − G[j]) for j ≤ i, and
// E[i] = exp(G[last] − G[i]). The changes Z of the memory solve a unit lower triangular system, and
//     Z = V − e^G ⊙ K S − strictly lower(K Kᵀ ⊙ D) (β ⊙ Z)
//     O = e^G ⊙ Q S + lower(Q Kᵀ ⊙ D) (β ⊙ Z)
//     S ← e^G[last] S + (E ⊙ K)ᵀ (β ⊙ Z)
// In a state space Z = V. Queries and keys are read from S in the same way, so they are the rows of one matrix ("readers").
// The backward pass saves Z alone: it computes the memories before each chunk from Z, and then goes through the chunks in
// reverse order.
#include "ckernels/Recurrence.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "SmallProduct.hpp"
#include "ckernels/Parallel.hpp"

using namespace ckernels;

namespace {

/// Tokens of a chunk, a multiple of `panel`. Matmuls within chunks take a share of chunk / (chunk + 1.5 · size) of the time.
constexpr int64_t chunk = 32;
constexpr int64_t chunk_stride = row_stride(chunk);
/// Sequences of at most so many tokens are computed token by token.
constexpr int64_t few_tokens = 4;
/// Heads of a key head that one work item computes in the backward pass, where their gradients are summed.
constexpr int64_t heads_of_an_item = 8;
/// Minimum multiplications per thread.
constexpr int64_t grain = 1 << 18;
/// Added to the squared norms of queries and keys.
constexpr float epsilon = 1e-6f;

constexpr int lanes = 16;

CK_INLINED float inner(const float *a, const float *b, int64_t count) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= count; i += lanes) {
        for (int k = 0; k < lanes; ++k) sums[k] += a[i + k] * b[i + k];
    }
    float rest = 0;
    for (; i < count; ++i) rest += a[i] * b[i];
    return rest + sum_of(sums);
}

/// y = factor · x
CK_INLINED void scale(const float *x, float factor, float *y, int64_t count) {
    CK_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) y[i] = factor * x[i];
}

/// y += factor · x
CK_INLINED void add(const float *x, float factor, float *y, int64_t count) {
    CK_INDEPENDENT
    for (int64_t i = 0; i < count; ++i) y[i] += factor * x[i];
}

typedef float Quad __attribute__((vector_size(16)));

/// y [columns, rows] = xᵀ for x [rows, columns]; sizes are rounded up to multiples of 4.
CK_INLINED void transpose(const float *x, int64_t x_stride, int64_t rows, int64_t columns, float *y, int64_t y_stride) {
    for (int64_t row = 0; row < rows; row += 4) {
        for (int64_t column = 0; column < columns; column += 4) {
            Quad r[4];
            for (int i = 0; i < 4; ++i) std::memcpy(&r[i], x + (row + i) * x_stride + column, sizeof(Quad));
            const Quad a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5), b = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5);
            const Quad c = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7), d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
            r[0] = __builtin_shufflevector(a, b, 0, 1, 4, 5);
            r[1] = __builtin_shufflevector(a, b, 2, 3, 6, 7);
            r[2] = __builtin_shufflevector(c, d, 0, 1, 4, 5);
            r[3] = __builtin_shufflevector(c, d, 2, 3, 6, 7);
            for (int i = 0; i < 4; ++i) std::memcpy(y + (column + i) * y_stride + row, &r[i], sizeof(Quad));
        }
    }
}

typedef float Panel __attribute__((vector_size(panel * sizeof(float))));

/// y += Σ factors[j] x[j] over the rows of x, for `Panels` panels.
template <int Panels>
CK_INLINED void add_panels(const float *factors, int64_t factor_stride, const float *x, int64_t x_stride, int64_t rows,
                           float *y) {
    Panel sums[Panels];
    for (int i = 0; i < Panels; ++i) std::memcpy(&sums[i], y + i * panel, sizeof(Panel));
    for (int64_t row = 0; row < rows; ++row, x += x_stride) {
        const float factor = factors[row * factor_stride];
        for (int i = 0; i < Panels; ++i) {
            Panel own;
            std::memcpy(&own, x + i * panel, sizeof own);
            sums[i] += factor * own;
        }
    }
    for (int i = 0; i < Panels; ++i) std::memcpy(y + i * panel, &sums[i], sizeof(Panel));
}

/// y += Σ factors[j] x[j] over the rows of x, whose number of columns is rounded up to a multiple of `panel`.
CK_INLINED void add_rows(const float *factors, int64_t factor_stride, const float *x, int64_t x_stride, int64_t rows, float *y,
                         int64_t columns) {
    int64_t column = 0;
    for (; column + 3 * panel < columns; column += 4 * panel) {
        add_panels<4>(factors, factor_stride, x + column, x_stride, rows, y + column);
    }
    for (; column < columns; column += panel) add_panels<1>(factors, factor_stride, x + column, x_stride, rows, y + column);
}

/// Sizes of a head, with the distances of rows in buffers of keys and of values.
struct Sizes {
    const Recurrence &recurrence;
    int64_t key_stride, value_stride;

    explicit Sizes(const Recurrence &recurrence)
        : recurrence(recurrence), key_stride(row_stride(recurrence.key_size)), value_stride(row_stride(recurrence.value_size)) {}

    int64_t keys() const { return recurrence.key_size; }
    int64_t values() const { return recurrence.value_size; }
};

/// One sequence and head.
struct Head : Sizes {
    const RecurrenceInputs &inputs;
    size_t row;
    int64_t head;

    Head(const Recurrence &recurrence, const RecurrenceInputs &inputs, size_t row, int64_t head)
        : Sizes(recurrence), inputs(inputs), row(row), head(head) {}

    bool is_delta() const { return recurrence.kind == Recurrence::Kind::gated_delta; }
    int64_t first() const { return recurrence.offsets[row]; }
    int64_t tokens() const { return recurrence.offsets[row + 1] - recurrence.offsets[row]; }
    /// Factor of the queries.
    float query_scale() const { return is_delta() ? 1 / std::sqrt(static_cast<float>(keys())) : 1; }

    // Tokens are those of the packed sequences.
    int64_t key_column() const { return head / recurrence.heads_of_a_key() * keys(); }
    const float *query(int64_t token) const { return inputs.x + token * recurrence.width + recurrence.queries + key_column(); }
    /// Requests the token's query, key and value: rows are far apart, so the processor doesn't foresee them.
    CK_INLINED void prefetch(int64_t token) const {
        for (int64_t i = 0; i < keys(); i += panel) {
            __builtin_prefetch(query(token) + i);
            __builtin_prefetch(key(token) + i);
        }
        for (int64_t i = 0; i < values(); i += panel) __builtin_prefetch(value(token) + i);
    }
    const float *key(int64_t token) const { return inputs.x + token * recurrence.width + recurrence.keys + key_column(); }
    int64_t value_place(int64_t token) const { return token * recurrence.width + recurrence.values + head * values(); }
    const float *value(int64_t token) const { return inputs.x + value_place(token); }
    float rate(int64_t token) const { return inputs.rates[token * recurrence.heads + head]; }
    float decay(int64_t token) const { return inputs.decays[token * recurrence.heads + head]; }
    /// Offset of a token's row of [tokens, heads, value size].
    int64_t place(int64_t token) const { return (token * recurrence.heads + head) * values(); }

    /// The head's matrix within its sequence's memory, whose rows are `memory_stride` apart.
    template <typename Float> Float *own_part(Float *memory) const {
        const int64_t share = recurrence.heads_of_a_key(), size = keys() * values();
        if (!memory) return nullptr;
        return memory + (is_delta() ? head * size : head / share * share * size + head % share * values());
    }
    int64_t memory_stride() const { return is_delta() ? values() : recurrence.heads_of_a_key() * values(); }
    const float *memory() const { return own_part(inputs.memories[row]); }

    /// Changes of a state space, or those that were saved.
    const float *changes(const float *saved, int64_t token) const { return is_delta() ? saved + place(token) : value(token); }
    int64_t change_stride() const { return is_delta() ? recurrence.heads * values() : recurrence.width; }

    /// Writes the token's query or key, of unit length if the rule says so, times a factor.
    /// - Returns: the inverse of its norm, or 1.
    CK_INLINED float load(const float *x, float factor, float *y) const {
        const float inverse = is_delta() ? 1 / std::sqrt(inner(x, x, keys()) + epsilon) : 1;
        scale(x, inverse * factor, y, keys());
        return inverse;
    }
};

/// Rates and sums of decays of a chunk's tokens.
struct Gates {
    int64_t count;
    /// β, and zeros behind the last token.
    float rates[chunk];
    /// G, and its last value behind the last token.
    float sums[chunk];
    /// exp(G) and exp(G[last] − G).
    float starts[chunk], ends[chunk];
    /// exp(G[last])
    float whole;

    // Not a constructor: compilers don't emit those that only functions for several instruction sets call.
    CK_INLINED void load(const Head &head, int64_t token, int64_t tokens) {
        count = tokens;
        float sum = 0;
        for (int64_t i = 0; i < count; ++i) {
            rates[i] = head.rate(token + i);
            sums[i] = sum += head.decay(token + i);
        }
        for (int64_t i = count; i < chunk; ++i) {
            rates[i] = 0;
            sums[i] = sum;
        }
        for (int64_t i = 0; i < chunk; ++i) starts[i] = exponential(sums[i]);
        for (int64_t i = 0; i < chunk; ++i) ends[i] = exponential(sum - sums[i]);
        whole = starts[count - 1];
    }

    /// exp(G[i] − G[j]) for the tokens up to i; later elements may have any finite value.
    CK_INLINED void fade(int64_t i, float *factors) const {
        const float own = sums[i];
        CK_INDEPENDENT
        for (int64_t j = 0; j < chunk; ++j) {
            const float difference = own - sums[j];
            factors[j] = exponential(difference < 0 ? difference : 0);
        }
    }
};

/// y = sign · x ⊙ factors for the first `count` elements of a row of a chunk, and zeros behind them.
CK_INLINED void mask(const float *x, const float *factors, int64_t count, float sign, float *y) {
    const auto end = static_cast<int32_t>(count);
    CK_INDEPENDENT
    for (int32_t j = 0; j < static_cast<int32_t>(chunk); ++j) {
        const float product = sign * x[j] * factors[j];
        y[j] = j < end ? product : 0.0f;
    }
}

/// Matrices of floats in one allocation, which starts as zeros.
class Buffers {
public:
    explicit Buffers(int64_t count) : storage(static_cast<size_t>(count)) {}
    float *take(int64_t rows, int64_t stride) {
        float *own = storage.data() + used;
        used += rows * stride;
        return own;
    }

private:
    std::vector<float> storage;
    int64_t used = 0;
};

// MARK: forward pass

struct ForwardBuffers : Buffers {
    float *readers, *transposed, *scores, *changes, *outputs, *writers, *memory;

    explicit ForwardBuffers(const Sizes &head)
        : Buffers(3 * chunk * head.key_stride + padded(head.keys()) * chunk_stride + 2 * chunk * chunk_stride +
                  3 * chunk * head.value_stride + padded(head.keys()) * head.value_stride) {
        readers = take(2 * chunk, head.key_stride);
        transposed = take(padded(head.keys()), chunk_stride);
        scores = take(2 * chunk, chunk_stride);
        changes = take(chunk, head.value_stride);
        outputs = take(2 * chunk, head.value_stride);
        writers = take(chunk, head.key_stride);
        memory = take(padded(head.keys()), head.value_stride);
    }
};

/// Queries and keys of a chunk, [2 count, keys], with the inverses of their norms unless NULL, and the keys transposed.
CK_INLINED void load_readers(const Head &head, int64_t token, int64_t count, float *readers, float *inverses, float *transposed) {
    const float factor = head.query_scale();
    for (int64_t i = 0; i < count; ++i) {
        const float query = head.load(head.query(token + i), factor, readers + i * head.key_stride);
        const float key = head.load(head.key(token + i), 1, readers + (count + i) * head.key_stride);
        if (inverses) {
            inverses[i] = query;
            inverses[count + i] = key;
        }
    }
    transpose(readers + count * head.key_stride, head.key_stride, count, head.keys(), transposed, chunk_stride);
}

/// The products of queries, and with the delta rule of keys, with the keys up to their own, [count, count] each.
CK_INLINED void score(const Head &head, int64_t count, const float *readers, const float *transposed, float *scores) {
    for (int64_t kind = 0; kind < (head.is_delta() ? 2 : 1); ++kind) {
        small_product(count, count, head.keys(), {readers + kind * count * head.key_stride, head.key_stride, 1}, transposed,
                      chunk_stride, 0, scores + kind * count * chunk_stride, chunk_stride, Triangle::lower_result);
    }
}

CK_CLONES void compute_chunks(const Head &head, float *results, float *saved, float *final, const ForwardBuffers &own) {
    const int64_t keys = head.keys(), values = head.values(), key_stride = head.key_stride, value_stride = head.value_stride;
    const int64_t kinds = head.is_delta() ? 2 : 1, tokens = head.tokens();
    const float skip = head.inputs.skip ? head.inputs.skip[head.head] : 0;
    bool has_memory = head.memory() != nullptr;
    if (has_memory) {
        for (int64_t i = 0; i < keys; ++i) {
            std::memcpy(own.memory + i * value_stride, head.memory() + i * head.memory_stride(),
                        static_cast<size_t>(values) * sizeof(float));
        }
    }
    for (int64_t start = 0; start < tokens; start += chunk) {
        const int64_t count = std::min(chunk, tokens - start), token = head.first() + start;
        Gates gates;
        gates.load(head, token, count);
        load_readers(head, token, count, own.readers, nullptr, own.transposed);
        for (int64_t i = start + count; i < std::min(tokens, start + count + chunk); ++i) head.prefetch(head.first() + i);
        score(head, count, own.readers, own.transposed, own.scores);
        float *of_keys = own.scores + count * chunk_stride;
        for (int64_t i = 0; i < count; ++i) {
            float *first = own.scores + i * chunk_stride, *second = of_keys + i * chunk_stride;
            float factors[chunk];
            gates.fade(i, factors);
            CK_INDEPENDENT
            for (int64_t j = 0; j < chunk; ++j) factors[j] *= gates.rates[j];
            mask(first, factors, i + 1, 1, first);
            if (head.is_delta()) mask(second, factors, i, -1, second);
        }
        if (has_memory) {
            small_product(kinds * count, values, keys, {own.readers, key_stride, 1}, own.memory, value_stride, 0, own.outputs,
                          value_stride);
        }
        for (int64_t i = 0; i < count; ++i) {
            float *change = own.changes + i * value_stride, *output = own.outputs + i * value_stride;
            std::memcpy(change, head.value(token + i), static_cast<size_t>(values) * sizeof(float));
            if (has_memory && head.is_delta()) {
                add(own.outputs + (count + i) * value_stride, -gates.starts[i], change, values);
            }
            if (has_memory) scale(output, gates.starts[i], output, values);
            if (!head.is_delta()) continue;
            add_rows(of_keys + i * chunk_stride, 1, own.changes, value_stride, i, change, values);
            if (saved) std::memcpy(saved + head.place(token + i), change, static_cast<size_t>(values) * sizeof(float));
        }
        small_product(count, values, count, {own.scores, chunk_stride, 1}, own.changes, value_stride, has_memory ? 1 : 0,
                      own.outputs, value_stride, Triangle::lower);
        for (int64_t i = 0; i < count; ++i) {
            float *result = results + head.place(token + i);
            std::memcpy(result, own.outputs + i * value_stride, static_cast<size_t>(values) * sizeof(float));
            if (head.inputs.skip) add(head.value(token + i), skip, result, values);
        }
        if (!final && start + count == tokens) break;
        for (int64_t i = 0; i < count; ++i) {
            scale(own.readers + (count + i) * key_stride, gates.ends[i] * gates.rates[i], own.writers + i * key_stride, keys);
        }
        small_product(keys, values, count, {own.writers, 1, key_stride}, own.changes, value_stride, has_memory ? gates.whole : 0,
                      own.memory, value_stride);
        has_memory = true;
    }
    if (!final) return;
    for (int64_t i = 0; i < keys; ++i) {
        std::memcpy(final + i * head.memory_stride(), own.memory + i * value_stride, static_cast<size_t>(values) * sizeof(float));
    }
}

/// Σ over keys of the memory's rows times q and k; `read` is NULL if that of k isn't needed.
CK_INLINED void read_memory(const float *memory, int64_t stride, const float *q, const float *k, int64_t keys, int64_t values,
                            float *output, float *read) {
    std::fill_n(output, values, 0.0f);
    if (read) std::fill_n(read, values, 0.0f);
    if (!memory) return;
    int64_t i = 0;
    for (; i + 4 <= keys; i += 4, memory += 4 * stride) {
        const float *a = memory, *b = a + stride, *c = b + stride, *d = c + stride;
        const float q0 = q[i], q1 = q[i + 1], q2 = q[i + 2], q3 = q[i + 3];
        if (read) {
            const float k0 = k[i], k1 = k[i + 1], k2 = k[i + 2], k3 = k[i + 3];
            CK_INDEPENDENT
            for (int64_t j = 0; j < values; ++j) {
                output[j] += (q0 * a[j] + q1 * b[j]) + (q2 * c[j] + q3 * d[j]);
                read[j] += (k0 * a[j] + k1 * b[j]) + (k2 * c[j] + k3 * d[j]);
            }
        } else {
            CK_INDEPENDENT
            for (int64_t j = 0; j < values; ++j) output[j] += (q0 * a[j] + q1 * b[j]) + (q2 * c[j] + q3 * d[j]);
        }
    }
    for (; i < keys; ++i, memory += stride) {
        add(memory, q[i], output, values);
        if (read) add(memory, k[i], read, values);
    }
}

/// Number of floats of the buffer for the function below.
int64_t buffer_of_tokens(const Sizes &sizes) { return 2 * sizes.keys() + (2 + sizes.keys()) * sizes.values(); }

/// Token by token: each reads the memory once and writes it once.
CK_CLONES void compute_tokens(const Head &head, float *results, float *saved, float *final, float *buffer) {
    const int64_t keys = head.keys(), values = head.values();
    const float skip = head.inputs.skip ? head.inputs.skip[head.head] : 0;
    const bool needs_copy = !final && head.tokens() > 1;
    float *q = buffer, *k = q + keys, *output = k + keys, *change = output + values;
    float *next = needs_copy ? change + values : final;
    const int64_t next_stride = needs_copy ? values : head.memory_stride();
    const float *memory = head.memory();
    int64_t stride = head.memory_stride();
    for (int64_t i = 0; i < head.tokens(); ++i) {
        const int64_t token = head.first() + i;
        head.load(head.query(token), head.query_scale(), q);
        head.load(head.key(token), 1, k);
        const float fade = exponential(head.decay(token)), rate = head.rate(token);
        const float *value = head.value(token);
        read_memory(memory, stride, q, k, keys, values, output, head.is_delta() ? change : nullptr);
        if (head.is_delta()) {
            CK_INDEPENDENT
            for (int64_t j = 0; j < values; ++j) change[j] = value[j] - fade * change[j];
            if (saved) std::memcpy(saved + head.place(token), change, static_cast<size_t>(values) * sizeof(float));
        }
        const float *written = head.is_delta() ? change : value;
        const float own = inner(q, k, keys) * rate;
        float *result = results + head.place(token);
        CK_INDEPENDENT
        for (int64_t j = 0; j < values; ++j) result[j] = fade * output[j] + own * written[j] + skip * value[j];
        if (!next || (needs_copy && i + 1 == head.tokens())) break;
        for (int64_t row = 0; row < keys; ++row) {
            float *to = next + row * next_stride;
            const float factor = rate * k[row];
            if (memory) {
                const float *from = memory + row * stride;
                CK_INDEPENDENT
                for (int64_t j = 0; j < values; ++j) to[j] = fade * from[j] + factor * written[j];
            } else {
                scale(written, factor, to, values);
            }
        }
        memory = next;
        stride = next_stride;
    }
}

// MARK: backward pass

struct BackwardBuffers : Buffers {
    float *readers, *transposed, *scores, *between, *errors, *seen, *written, *written_transposed, *to_scores, *to_readers,
        *to_keys, *writers, *to_memory, *to_memory_transposed, *memories;

    /// - Parameter chunks: the number of chunks of the longest sequence.
    BackwardBuffers(const Sizes &head, int64_t chunks)
        : Buffers(2 * chunk * head.key_stride + padded(head.keys()) * chunk_stride + 2 * chunk * chunk_stride +
                  chunk * chunk_stride + chunk * head.value_stride + 2 * chunk * head.value_stride + chunk * head.value_stride +
                  padded(head.values()) * chunk_stride + 2 * chunk * chunk_stride + 2 * chunk * head.key_stride +
                  2 * chunk * head.key_stride + padded(head.keys()) * head.value_stride +
                  (chunks + 2) * padded(head.values()) * head.key_stride) {
        readers = take(2 * chunk, head.key_stride);
        transposed = take(padded(head.keys()), chunk_stride);
        scores = take(2 * chunk, chunk_stride);
        between = take(chunk, chunk_stride);
        errors = take(chunk, head.value_stride);
        seen = take(2 * chunk, head.value_stride);
        written = take(chunk, head.value_stride);
        written_transposed = take(padded(head.values()), chunk_stride);
        to_scores = take(2 * chunk, chunk_stride);
        to_readers = take(2 * chunk, head.key_stride);
        to_keys = take(chunk, head.key_stride);
        writers = take(chunk, head.key_stride);
        to_memory = take(padded(head.keys()), head.value_stride);
        to_memory_transposed = take(padded(head.values()), head.key_stride);
        memories = take((chunks + 1) * padded(head.values()), head.key_stride);
    }
};

/// Gradients of a head, of which those of queries and keys are summed over heads.
struct HeadGradients {
    const RecurrenceGradients &all;
    /// Of the first query and key of the packed sequences, whose tokens are so far apart.
    float *queries, *keys;
    int64_t stride;
    /// Whether those are added to, rather than overwritten.
    bool adds;
    /// Those of the head's skip in this sequence and of its first memory; NULL if they aren't needed.
    float *skip, *memory;
};

/// y = a · x + b · z, or y += that.
CK_INLINED void combine(const float *x, float a, const float *z, float b, bool adds, float *y, int64_t count) {
    if (adds) {
        CK_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) y[i] += a * x[i] + b * z[i];
    } else {
        CK_INDEPENDENT
        for (int64_t i = 0; i < count; ++i) y[i] = a * x[i] + b * z[i];
    }
}

/// The memories before each chunk, transposed, [chunks, values, keys]; also that after the last one if `all`.
CK_CLONES void compute_memories(const Head &head, const float *saved, bool all, const BackwardBuffers &own) {
    const int64_t size = padded(head.values()) * head.key_stride;
    bool has_memory = head.memory() != nullptr;
    if (has_memory) {
        for (int64_t i = 0; i < head.keys(); ++i) {
            for (int64_t j = 0; j < head.values(); ++j) {
                own.memories[j * head.key_stride + i] = head.memory()[i * head.memory_stride() + j];
            }
        }
    }
    float *memory = own.memories;
    for (int64_t start = 0; start < head.tokens(); start += chunk, memory += size) {
        const int64_t count = std::min(chunk, head.tokens() - start), token = head.first() + start;
        if (!all && start + count == head.tokens()) break;
        Gates gates;
        gates.load(head, token, count);
        for (int64_t i = 0; i < count; ++i) {
            float *writer = own.writers + i * head.key_stride;
            head.load(head.key(token + i), 1, writer);
            scale(writer, gates.ends[i] * gates.rates[i], writer, head.keys());
        }
        if (has_memory) std::memcpy(memory + size, memory, static_cast<size_t>(size) * sizeof(float));
        small_product(head.values(), head.keys(), count, {head.changes(saved, token), 1, head.change_stride()}, own.writers,
                      head.key_stride, has_memory ? gates.whole : 0, memory + size, head.key_stride);
        has_memory = true;
    }
}

CK_CLONES void differentiate(const Head &head, const float *saved, const float *gradient, const float *final_gradient,
                             const HeadGradients &to, const BackwardBuffers &own) {
    const int64_t keys = head.keys(), values = head.values(), key_stride = head.key_stride, value_stride = head.value_stride;
    const int64_t kinds = head.is_delta() ? 2 : 1, chunks = (head.tokens() + chunk - 1) / chunk;
    const float skip = head.inputs.skip ? head.inputs.skip[head.head] : 0, query_scale = head.query_scale();
    // Whether later chunks have a gradient w.r.t. the memory.
    bool has_gradient = final_gradient != nullptr;
    float to_skip = 0;
    for (int64_t i = 0; has_gradient && i < keys; ++i) {
        std::memcpy(own.to_memory + i * value_stride, final_gradient + i * head.memory_stride(),
                    static_cast<size_t>(values) * sizeof(float));
    }
    if (has_gradient) transpose(own.to_memory, value_stride, keys, values, own.to_memory_transposed, key_stride);
    for (int64_t index = chunks - 1; index >= 0; --index) {
        const int64_t start = index * chunk, count = std::min(chunk, head.tokens() - start), token = head.first() + start;
        const float *memory = own.memories + index * padded(values) * key_stride;
        const float *next_memory = memory + padded(values) * key_stride;
        const bool has_memory = index > 0 || head.memory() != nullptr;
        Gates gates;
        gates.load(head, token, count);
        float inverses[2 * chunk];
        load_readers(head, token, count, own.readers, inverses, own.transposed);
        for (int64_t i = std::max<int64_t>(0, start - chunk); i < start; ++i) {
            head.prefetch(head.first() + i);
            for (int64_t j = 0; j < values; j += panel) __builtin_prefetch(gradient + head.place(head.first() + i) + j);
        }
        const float *of_keys = own.readers + count * key_stride;
        score(head, count, own.readers, own.transposed, own.scores);
        for (int64_t i = 0; i < count; ++i) {
            float *first = own.scores + i * chunk_stride, *second = first + count * chunk_stride;
            float *factors = own.between + i * chunk_stride;
            gates.fade(i, factors);
            mask(first, factors, i + 1, 1, first);
            if (head.is_delta()) mask(second, factors, i, 1, second);
        }

        // The gradient w.r.t. β ⊙ Z from the outputs and from the next memory.
        for (int64_t i = 0; i < count; ++i) {
            std::memcpy(own.seen + i * value_stride, gradient + head.place(token + i),
                        static_cast<size_t>(values) * sizeof(float));
        }
        small_product(count, values, count, {own.scores, 1, chunk_stride}, own.seen, value_stride, 0, own.errors, value_stride,
                      Triangle::upper);
        if (has_gradient) {
            for (int64_t i = 0; i < count; ++i) {
                scale(of_keys + i * key_stride, gates.ends[i], own.writers + i * key_stride, keys);
            }
            small_product(count, values, keys, {own.writers, key_stride, 1}, own.to_memory, value_stride, 1, own.errors,
                          value_stride);
        }
        // Through the triangular system, from its last row on; −β ⊙ (the result) is the gradient of what keys read.
        float *seen_by_keys = own.seen + count * value_stride;
        for (int64_t i = count - 1; i >= 0; --i) {
            const int64_t own_token = token + i;
            float *error = own.errors + i * value_stride, *written = own.written + i * value_stride;
            if (head.is_delta()) {
                add_rows(own.scores + (count + i + 1) * chunk_stride + i, chunk_stride, seen_by_keys + (i + 1) * value_stride,
                         value_stride, count - 1 - i, error, values);
                scale(error, -gates.rates[i], seen_by_keys + i * value_stride, values);
            }
            const float *change = head.changes(saved, own_token), *upstream = gradient + head.place(own_token);
            to.all.rates[own_token * head.recurrence.heads + head.head] = inner(error, change, values);
            combine(error, gates.rates[i], upstream, skip, false, to.all.x + head.value_place(own_token), values);
            if (to.skip) to_skip += inner(upstream, head.value(own_token), values);
            scale(change, gates.rates[i], written, values);
        }
        transpose(own.written, value_stride, count, values, own.written_transposed, chunk_stride);
        for (int64_t kind = 0; kind < kinds; ++kind) {
            float *scores = own.to_scores + kind * count * chunk_stride;
            small_product(count, count, values, {own.seen + kind * count * value_stride, value_stride, 1}, own.written_transposed,
                          chunk_stride, 0, scores, chunk_stride, Triangle::lower_result);
            for (int64_t i = 0; i < count; ++i) {
                float *score = scores + i * chunk_stride;
                const float *factors = own.between + i * chunk_stride;
                mask(score, factors, i + 1 - kind, 1, score);
            }
        }
        for (int64_t kind = 0; kind < kinds; ++kind) {
            for (int64_t i = 0; i < count; ++i) {
                float *seen = own.seen + (kind * count + i) * value_stride;
                scale(seen, gates.starts[i], seen, values);
            }
        }

        // Queries and keys as readers, and keys as writers.
        if (has_memory) {
            small_product(kinds * count, keys, values, {own.seen, value_stride, 1}, memory, key_stride, 0, own.to_readers,
                          key_stride);
        }
        if (has_gradient) {
            for (int64_t i = 0; i < count; ++i) {
                scale(own.written + i * value_stride, gates.ends[i], own.written + i * value_stride, values);
            }
            small_product(count, keys, values, {own.written, value_stride, 1}, own.to_memory_transposed, key_stride, 0,
                          own.to_keys, key_stride);
        }
        for (int64_t kind = 0; kind < kinds; ++kind) {
            const float *scores = own.to_scores + kind * count * chunk_stride;
            small_product(count, keys, count, {scores, chunk_stride, 1}, of_keys, key_stride, has_memory ? 1 : 0,
                          own.to_readers + kind * count * key_stride, key_stride, Triangle::lower);
            small_product(count, keys, count, {scores, 1, chunk_stride}, own.readers + kind * count * key_stride, key_stride,
                          has_gradient || kind > 0 ? 1 : 0, own.to_keys, key_stride, Triangle::upper);
        }
        // d/dG[i] of all factors exp(G[i] − …) and exp(… − G[i]).
        float to_sums[chunk];
        for (int64_t i = 0; i < count; ++i) {
            const float *query = own.readers + i * key_stride, *key = of_keys + i * key_stride;
            const float *to_query = own.to_readers + i * key_stride, *to_reader = to_query + count * key_stride;
            float *to_key = own.to_keys + i * key_stride;
            const float by_query = inner(query, to_query, keys), by_writer = inner(key, to_key, keys);
            const float by_reader = head.is_delta() ? inner(key, to_reader, keys) : 0;
            to_sums[i] = by_query + by_reader - by_writer;
            if (head.is_delta()) add(to_reader, 1, to_key, keys);
            // Through the normalization: q = r s x with r the inverse of the norm.
            const float along_query = head.is_delta() ? -inverses[i] / query_scale * by_query : 0;
            const float along_key = head.is_delta() ? -inverses[count + i] * (by_reader + by_writer) : 0;
            combine(to_query, inverses[i] * query_scale, query, along_query, to.adds, to.queries + (token + i) * to.stride, keys);
            combine(to_key, inverses[count + i], key, along_key, to.adds, to.keys + (token + i) * to.stride, keys);
        }
        if (has_gradient) {
            for (int64_t i = 0; i < values; ++i) {
                to_sums[count - 1] += inner(own.to_memory_transposed + i * key_stride, next_memory + i * key_stride, keys);
            }
        }
        float sum = 0;
        for (int64_t i = count - 1; i >= 0; --i) {
            sum += to_sums[i];
            to.all.decays[(token + i) * head.recurrence.heads + head.head] = sum;
        }
        if (index == 0 && !to.memory) break;
        small_product(keys, values, kinds * count, {own.readers, 1, key_stride}, own.seen, value_stride,
                      has_gradient ? gates.whole : 0, own.to_memory, value_stride);
        transpose(own.to_memory, value_stride, keys, values, own.to_memory_transposed, key_stride);
        has_gradient = true;
    }
    if (to.skip) *to.skip = to_skip;
    for (int64_t i = 0; to.memory && i < keys; ++i) {
        float *result = to.memory + i * head.memory_stride();
        if (has_gradient) std::memcpy(result, own.to_memory + i * value_stride, static_cast<size_t>(values) * sizeof(float));
        else std::fill_n(result, values, 0.0f);
    }
}

// MARK: work items

/// Some heads of a sequence, which share their key head.
struct Item {
    size_t row;
    int64_t head, heads;
};

/// Calls `body(item, buffers)` for each item, those of long sequences first. Each thread has buffers, and takes the next item.
template <typename Make, typename Body>
void on_all(const Recurrence &recurrence, std::vector<Item> items, Make make_buffers, Body body) {
    auto tokens = [&](const Item &item) { return recurrence.offsets[item.row + 1] - recurrence.offsets[item.row]; };
    std::sort(items.begin(), items.end(), [&](const Item &a, const Item &b) { return tokens(a) > tokens(b); });
    const double work = static_cast<double>(recurrence.offsets.back() - recurrence.offsets.front()) *
                        static_cast<double>(recurrence.heads * recurrence.key_size * recurrence.value_size) * 3;
    const auto count = static_cast<int64_t>(items.size());
    const int64_t threads = std::min({static_cast<int64_t>(work / grain) + 1, count, available_threads()});
    std::atomic<size_t> next{0};
    parallel_for(0, threads, 1, [&](int64_t, int64_t) {
        const auto buffers = make_buffers();
        for (size_t i = next++; i < items.size(); i = next++) body(items[i], buffers);
    });
}

}  // namespace

namespace ckernels {

void recurrence(const Recurrence &recurrence, const RecurrenceInputs &inputs, float *outputs, float *changes,
                const std::vector<float *> &memories) {
    int64_t longest = 0;
    std::vector<Item> items;
    for (size_t row = 0; row < recurrence.rows(); ++row) {
        longest = std::max(longest, recurrence.offsets[row + 1] - recurrence.offsets[row]);
        for (int64_t head = 0; head < recurrence.heads; ++head) items.push_back({row, head, 1});
    }
    struct Scratch {
        std::unique_ptr<ForwardBuffers> chunks;
        std::unique_ptr<float[]> tokens;
    };
    auto make_buffers = [&] {
        const Sizes sizes(recurrence);
        return Scratch{longest > few_tokens ? std::make_unique<ForwardBuffers>(sizes) : nullptr,
                       std::unique_ptr<float[]>(new float[static_cast<size_t>(buffer_of_tokens(sizes))])};
    };
    on_all(recurrence, std::move(items), make_buffers, [&](const Item &item, const Scratch &scratch) {
        const Head head(recurrence, inputs, item.row, item.head);
        float *memory = memories.empty() ? nullptr : head.own_part(memories[item.row]);
        if (head.tokens() > few_tokens) return compute_chunks(head, outputs, changes, memory, *scratch.chunks);
        if (head.tokens() > 0) return compute_tokens(head, outputs, changes, memory, scratch.tokens.get());
        for (int64_t i = 0; memory && i < head.keys(); ++i) {
            float *to = memory + i * head.memory_stride();
            if (head.memory()) std::copy_n(head.memory() + i * head.memory_stride(), head.values(), to);
            else std::fill_n(to, head.values(), 0.0f);
        }
    });
}

void recurrence_backward(const Recurrence &recurrence, const RecurrenceInputs &inputs, const float *changes,
                         const float *gradient, const std::vector<const float *> &memory_gradients,
                         const RecurrenceGradients &to) {
    const int64_t share = recurrence.heads_of_a_key(), width = recurrence.key_heads * recurrence.key_size;
    // Each part of a key head's heads sums the gradients of their queries and keys.
    const int64_t parts = (share + heads_of_an_item - 1) / heads_of_an_item, tokens = recurrence.offsets.back();
    std::vector<float> sums(static_cast<size_t>(parts > 1 ? parts * tokens * 2 * width : 0));
    std::vector<float> skips(to.skip ? recurrence.rows() * static_cast<size_t>(recurrence.heads) : 0);
    int64_t longest = 0;
    std::vector<Item> items;
    for (size_t row = 0; row < recurrence.rows(); ++row) {
        longest = std::max(longest, recurrence.offsets[row + 1] - recurrence.offsets[row]);
        for (int64_t head = 0; head < recurrence.heads; head += share) {
            for (int64_t first = 0; first < share; first += heads_of_an_item) {
                items.push_back({row, head + first, std::min(heads_of_an_item, share - first)});
            }
        }
    }
    auto make_buffers = [&] { return BackwardBuffers(Sizes(recurrence), (longest + chunk - 1) / chunk); };
    on_all(recurrence, std::move(items), make_buffers, [&](const Item &item, const BackwardBuffers &buffers) {
        for (int64_t index = 0; index < item.heads; ++index) {
            const Head head(recurrence, inputs, item.row, item.head + index);
            HeadGradients own{to,
                              to.x + recurrence.queries + head.key_column(),
                              to.x + recurrence.keys + head.key_column(),
                              recurrence.width,
                              index > 0,
                              nullptr,
                              nullptr};
            if (!to.memories.empty()) own.memory = head.own_part(to.memories[item.row]);
            const float *final = memory_gradients.empty() ? nullptr : head.own_part(memory_gradients[item.row]);
            if (parts > 1) {
                float *sum = sums.data() + item.head % share / heads_of_an_item * tokens * 2 * width;
                own.queries = sum + head.key_column();
                own.keys = own.queries + width;
                own.stride = 2 * width;
            }
            if (to.skip) own.skip = skips.data() + item.row * static_cast<size_t>(recurrence.heads) + head.head;
            compute_memories(head, changes, final != nullptr, buffers);
            differentiate(head, changes, gradient, final, own, buffers);
        }
    });
    if (parts > 1) {
        parallel_for(0, tokens, std::max<int64_t>(1, grain / (parts * 2 * width)), [&](int64_t begin, int64_t end) {
            for (int64_t token = begin; token < end; ++token) {
                float *row = to.x + token * recurrence.width;
                for (int64_t part = 0; part < parts; ++part) {
                    const float *sum = sums.data() + (part * tokens + token) * 2 * width;
                    for (int64_t i = 0; i < width; ++i) {
                        row[recurrence.queries + i] = (part > 0 ? row[recurrence.queries + i] : 0) + sum[i];
                        row[recurrence.keys + i] = (part > 0 ? row[recurrence.keys + i] : 0) + sum[width + i];
                    }
                }
            }
        });
    }
    for (int64_t head = 0; to.skip && head < recurrence.heads; ++head) {
        to.skip[head] = 0;
        for (size_t row = 0; row < recurrence.rows(); ++row) {
            to.skip[head] += skips[row * static_cast<size_t>(recurrence.heads) + static_cast<size_t>(head)];
        }
    }
}

}  // namespace ckernels
