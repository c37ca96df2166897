// The backward pass of chunked recurrences; the forward pass has the equations.
#include "RecurrenceHead.hpp"

using namespace ckernels;
using namespace ckernels::recurrences;

namespace {

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

}  // namespace

namespace ckernels {

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
