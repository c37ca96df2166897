// What both passes of a recurrence need of one sequence and head: its rows, the gates of a chunk, the scores of its readers, and
// the division of all of them among threads.
#pragma once

#include "ckernels/Recurrence.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "Exponential.hpp"
#include "Simd.hpp"
#include "SmallProduct.hpp"
#include "ckernels/Parallel.hpp"

namespace ckernels::recurrences {

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

}  // namespace ckernels::recurrences
