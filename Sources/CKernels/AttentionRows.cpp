// Attention over packed sequences on the CPU: one sequence and key head is one work item for a thread. The scores of
// a block of queries are computed and consumed while they are in the L2 cache; fp32 matrices are used in place, bf16
// ones are upcast per work item.
#include "ckernels/AttentionRows.hpp"

#include <atomic>
#include <numeric>

#include "Simd.hpp"
#include "ckernels/Blas.hpp"
#include "ckernels/DropoutMask.hpp"
#include "ckernels/HalfPrecision.hpp"
#include "ckernels/Parallel.hpp"
#include "ckernels/SoftmaxRow.hpp"

using namespace ckernels;

namespace {

constexpr int lanes = 16;
/// Queries per block of scores.
constexpr int64_t step = 128;
/// Minimum multiplications per thread.
constexpr int64_t grain = 1 << 18;

/// Gradient of the scores from that of their softmax p, g ← p ⊙ (g − Σ p g), added to `to_bias` unless NULL, then
/// multiplied by the scale.
CK_CLONES void softmax_backward(const float *p, float *g, float *to_bias, float scale, int64_t keys) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= keys; i += lanes) {
        for (int k = 0; k < lanes; ++k) sums[k] += p[i + k] * g[i + k];
    }
    for (; i < keys; ++i) sums[0] += p[i] * g[i];
    const float dot = sum_of(sums);
    if (to_bias) {
        for (int64_t j = 0; j < keys; ++j) {
            const float to_score = p[j] * (g[j] - dot);
            to_bias[j] += to_score;
            g[j] = to_score * scale;
        }
    } else {
        for (int64_t j = 0; j < keys; ++j) g[j] = p[j] * (g[j] - dot) * scale;
    }
}

/// Some heads of one sequence in a packed tensor [tokens, heads, size], in fp32: in place, or an upcast copy of bf16.
class HeadSlice {
public:
    /// - Parameter reads: whether the values are read; if not, a bf16 tensor's copy starts as zeros.
    HeadSlice(const PackedHeads &x, int64_t first, int64_t tokens, int64_t head, int64_t heads, bool reads)
        : tokens(tokens), size(x.size), width(heads * size), token_stride(x.heads * size) {
        const int64_t start = first * token_stride + head * size;
        if (!x.is_bf16) {
            floats = static_cast<float *>(x.data) + start;
            return;
        }
        bf16 = static_cast<BFloat *>(x.data) + start;
        copy.resize(static_cast<size_t>(tokens * width));
        floats = copy.data();
        if (!reads) return;
        for (int64_t token = 0; token < tokens; ++token) upcast(bf16 + token * token_stride, floats + token * width, width);
    }
    HeadSlice(const HeadSlice &) = delete;

    /// Floats from one token to the next.
    int64_t stride() const { return bf16 ? width : token_stride; }
    /// Token and head are relative to this slice.
    float *at(int64_t token, int64_t head = 0) const { return floats + token * stride() + head * size; }
    int64_t head_size() const { return size; }

    void set_zero(int64_t first, int64_t count, int64_t head = 0) const {
        for (int64_t i = 0; i < count; ++i) std::fill_n(at(first + i, head), size, 0.0f);
    }
    /// Downcasts a copy back into the bf16 tensor.
    void store() const {
        if (!bf16) return;
        for (int64_t token = 0; token < tokens; ++token) downcast(floats + token * width, bf16 + token * token_stride, width);
    }

private:
    int64_t tokens, size, width, token_stride;
    float *floats;
    BFloat *bf16 = nullptr;
    std::vector<float> copy;
};

/// A block of a tile's queries, for one head.
struct Part {
    size_t row;
    /// Index of the tile within its sequence.
    size_t number;
    const AttentionTile &tile;
    /// Relative to the tile.
    int64_t begin, end;
    /// Index among all query heads, and among those of one key head.
    int64_t head, each;

    int64_t queries() const { return end - begin; }
    /// Relative to the sequence.
    int64_t first_query() const { return tile.query + begin; }
    /// Offset of the block's first score in the tile's [heads, queries, keys].
    int64_t offset() const { return (head * tile.queries + begin) * tile.keys; }
};

/// A bias or its gradient, with the first column of each sequence.
struct Bias : AttentionBias {
    std::vector<int64_t> first_columns;

    Bias(const AttentionBias &given, const AttentionSettings &settings) : AttentionBias(given) {
        if (!data) return;
        const int64_t longest = settings.bias_by_key ? 0 : settings.longest_prefix();
        for (size_t row = 0; row < settings.rows(); ++row) {
            first_columns.push_back(settings.bias_by_key ? 0 : longest - settings.prefix(row));
        }
    }

    /// The bias row of a query of a block; NULL without a bias.
    float *row(const Part &part, int64_t query) const {
        if (!data) return nullptr;
        return data + part.head * head_stride + (part.tile.query + part.begin + query) * query_stride + first_columns[part.row] +
               part.tile.key;
    }
};

/// One sequence's queries of one key head: a work item.
struct Item {
    size_t row;
    int64_t group;
};

/// Head counts and the head size.
struct Heads {
    int64_t queries, keys, size;

    Heads(const PackedHeads &q, const PackedHeads &k) : queries(q.heads), keys(k.heads), size(q.size) {}
    int64_t queries_of_a_key() const { return queries / keys; }
};

HeadSlice queries_of(const Item &item, const AttentionSettings &settings, const Heads &heads, const PackedHeads &x, bool reads) {
    return HeadSlice(x, settings.query_offsets[item.row], settings.queries(item.row), item.group * heads.queries_of_a_key(),
                     heads.queries_of_a_key(), reads);
}

HeadSlice keys_of(const Item &item, const AttentionSettings &settings, const PackedHeads &x, bool reads) {
    return HeadSlice(x, settings.key_offsets[item.row], settings.keys(item.row), item.group, 1, reads);
}

/// softmax of the block's scores, [queries, tile keys], before dropout.
void make_probabilities(const AttentionSettings &settings, const HeadSlice &q, const HeadSlice &k, const Bias &biases,
                        const Part &part, float *scores) {
    const AttentionTile &tile = part.tile;
    serial_product(false, true, part.queries(), tile.keys, q.head_size(), 1, q.at(part.first_query(), part.each), q.stride(),
                   k.at(tile.key), k.stride(), 0, scores, tile.keys);
    const int64_t before = settings.prefix(part.row) - tile.key;
    for (int64_t i = 0; i < part.queries(); ++i) {
        int64_t seen = 0, end = tile.keys;
        // Index of the query's own token among the tile's keys.
        const int64_t token = before + tile.query + part.begin + i;
        if (settings.causal) end = token + 1;
        if (settings.window > 0) {
            seen = std::max<int64_t>(0, token + 1 - settings.window);
            end = std::min(end, token + settings.window);
        }
        float *own = scores + i * tile.keys;
        const float *bias = biases.row(part, i);
        std::fill(own, own + seen, 0.0f);
        softmax_row(own + seen, bias ? bias + seen : nullptr, 1, static_cast<float>(settings.scale), end - seen);
        std::fill(own + end, own + tile.keys, 0.0f);
    }
}

template <typename Body>
void for_parts(const AttentionSettings &settings, const Heads &heads, const Item &item, Body body) {
    const std::vector<AttentionTile> tiles = tiles_of(settings, item.row);
    for (size_t number = 0; number < tiles.size(); ++number) {
        const AttentionTile &tile = tiles[number];
        for (int64_t begin = 0; begin < tile.queries; begin += step) {
            for (int64_t each = 0; each < heads.queries_of_a_key(); ++each) {
                body(Part{item.row, number, tile, begin, std::min(begin + step, tile.queries),
                          item.group * heads.queries_of_a_key() + each, each});
            }
        }
    }
}

/// Calls `body(items, scratch)` for each list, dynamically scheduled: each thread takes the next list, largest first.
template <typename Body>
void on_all(const AttentionSettings &settings, const Heads &heads, const std::vector<std::vector<Item>> &lists, Body body) {
    std::vector<double> costs;
    double total = 0;
    for (const auto &list : lists) {
        double cost = 0;
        for (const Item &item : list) {
            cost += static_cast<double>(settings.queries(item.row)) * static_cast<double>(settings.keys(item.row));
        }
        total += cost;
        costs.push_back(cost);
    }
    std::vector<size_t> order(lists.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] != costs[b] ? costs[a] > costs[b] : a < b; });
    const auto worth = static_cast<int64_t>(total * static_cast<double>(heads.size * heads.queries_of_a_key()) / grain) + 1;
    const int64_t threads = std::min<int64_t>({worth, static_cast<int64_t>(lists.size()), available_threads()});
    std::atomic<size_t> next{0};
    parallel_for(0, threads, 1, [&](int64_t, int64_t) {
        std::vector<float> scratch;
        for (size_t i = next++; i < order.size(); i = next++) body(lists[order[i]], scratch);
    });
}

/// One item per list.
std::vector<std::vector<Item>> apart(const AttentionSettings &settings, int64_t groups) {
    std::vector<std::vector<Item>> lists;
    for (size_t row = 0; row < settings.rows(); ++row) {
        for (int64_t group = 0; group < groups; ++group) lists.push_back({{row, group}});
    }
    return lists;
}

/// One list per key head: its sequences all write to the same part of the bias gradient.
std::vector<std::vector<Item>> by_head(const AttentionSettings &settings, int64_t groups) {
    std::vector<std::vector<Item>> lists(static_cast<size_t>(groups));
    for (size_t row = 0; row < settings.rows(); ++row) {
        for (int64_t group = 0; group < groups; ++group) lists[static_cast<size_t>(group)].push_back({row, group});
    }
    return lists;
}

}  // namespace

namespace ckernels {

void attention_rows(const PackedHeads &q, const PackedHeads &k, const PackedHeads &v, const AttentionBias &given_bias,
                    const AttentionSettings &settings, const PackedHeads &output) {
    const Heads heads(q, k);
    const Bias bias(given_bias, settings);
    on_all(settings, heads, apart(settings, heads.keys), [&](const std::vector<Item> &items, std::vector<float> &scores) {
        for (const Item &item : items) {
            const HeadSlice queries = queries_of(item, settings, heads, q, true);
            const HeadSlice y = queries_of(item, settings, heads, output, false);
            const HeadSlice own = keys_of(item, settings, k, true), values = keys_of(item, settings, v, true);
            for_parts(settings, heads, item, [&](const Part &part) {
                const int64_t keys = part.tile.keys, count = part.queries() * keys;
                // Queries that see no key.
                if (keys == 0) return y.set_zero(part.first_query(), part.queries(), part.each);
                scores.resize(std::max(scores.size(), static_cast<size_t>(count)));
                make_probabilities(settings, queries, own, bias, part, scores.data());
                if (settings.dropout > 0) {
                    drop_part(scores.data(), scores.data(), part.offset(), count,
                              DropoutMask(settings.dropout, tile_seed(settings.seed, part.row, part.number)));
                }
                serial_product(false, false, part.queries(), heads.size, keys, 1, scores.data(), keys, values.at(part.tile.key),
                               values.stride(), 0, y.at(part.first_query(), part.each), y.stride());
            });
            y.store();
        }
    });
}

void attention_rows_backward(const PackedHeads &gradient, const PackedHeads &q, const PackedHeads &k, const PackedHeads &v,
                             const AttentionBias &given_bias, const AttentionSettings &settings, const PackedHeads &to_q,
                             const PackedHeads &to_k, const PackedHeads &to_v, const AttentionBias &to_bias) {
    const Heads heads(q, k);
    const Bias bias(given_bias, settings), db(to_bias, settings);
    const auto lists = db.data ? by_head(settings, heads.keys) : apart(settings, heads.keys);
    on_all(settings, heads, lists, [&](const std::vector<Item> &items, std::vector<float> &scratch) {
        for (const Item &item : items) {
            const HeadSlice own_queries = queries_of(item, settings, heads, q, true);
            const HeadSlice upstream = queries_of(item, settings, heads, gradient, true);
            const HeadSlice dq = queries_of(item, settings, heads, to_q, false);
            const HeadSlice own_keys = keys_of(item, settings, k, true), values = keys_of(item, settings, v, true);
            const HeadSlice dk = keys_of(item, settings, to_k, false), dv = keys_of(item, settings, to_v, false);
            // Overlapping tiles accumulate into the gradients of the keys that they share.
            dk.set_zero(0, settings.keys(item.row));
            dv.set_zero(0, settings.keys(item.row));
            for_parts(settings, heads, item, [&](const Part &part) {
                const int64_t keys = part.tile.keys, queries = part.queries(), count = queries * keys;
                if (keys == 0) return dq.set_zero(part.first_query(), queries, part.each);
                const bool drops = settings.dropout > 0;
                scratch.resize(std::max(scratch.size(), static_cast<size_t>((drops ? 3 : 2) * count)));
                float *p = scratch.data(), *s = p + count, *used = drops ? s + count : p;
                const DropoutMask mask(settings.dropout, tile_seed(settings.seed, part.row, part.number));
                make_probabilities(settings, own_queries, own_keys, bias, part, p);
                if (drops) drop_part(p, used, part.offset(), count, mask);
                const int64_t first = part.first_query(), from = part.tile.key, size = heads.size;
                serial_product(true, false, keys, size, queries, 1, used, keys, upstream.at(first, part.each), upstream.stride(),
                               1, dv.at(from), dv.stride());
                serial_product(false, true, queries, keys, size, 1, upstream.at(first, part.each), upstream.stride(),
                               values.at(from), values.stride(), 0, s, keys);
                if (drops) drop_part(s, s, part.offset(), count, mask);
                for (int64_t i = 0; i < queries; ++i) {
                    softmax_backward(p + i * keys, s + i * keys, db.row(part, i), static_cast<float>(settings.scale), keys);
                }
                serial_product(false, false, queries, size, keys, 1, s, keys, own_keys.at(from), own_keys.stride(), 0,
                               dq.at(first, part.each), dq.stride());
                serial_product(true, false, keys, size, queries, 1, s, keys, own_queries.at(first, part.each),
                               own_queries.stride(), 1, dk.at(from), dk.stride());
            });
            dq.store();
            dk.store();
            dv.store();
        }
    });
}

}  // namespace ckernels
