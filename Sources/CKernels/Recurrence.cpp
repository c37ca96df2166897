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
#include <memory>

#include "RecurrenceHead.hpp"

using namespace ckernels;
using namespace ckernels::recurrences;

namespace {

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

}  // namespace ckernels
