// Attention over packed rows in fp32 on the CPU: a row and a head of its keys are one thread's work. Scores of some queries
// are made, used and forgotten while they are in the second cache, and matrices are read and written where they lie.
#include "AttentionRows.hpp"

#include <ATen/Parallel.h>

#include <atomic>
#include <numeric>

#include "Blas.hpp"
#include "Clones.hpp"
#include "Dropout.hpp"
#include "Parallel.hpp"
#include "SoftmaxRow.hpp"

using namespace ctorch;

namespace {

constexpr int lanes = 16;
/// Queries whose scores are made at a time.
constexpr int64_t step = 128;
/// Multiplications that are worth a thread.
constexpr int64_t grain = 1 << 18;

/// The gradient of scores from that of their softmax p, g ← p ⊙ (g − Σ p g), added to `to_bias` where it is asked for, and
/// then times the scale.
CT_CLONES void softmax_backward(const float *p, float *g, float *to_bias, float scale, int64_t keys) {
    float sums[lanes] = {};
    int64_t i = 0;
    for (; i + lanes <= keys; i += lanes) {
        for (int k = 0; k < lanes; ++k) sums[k] += p[i + k] * g[i + k];
    }
    for (; i < keys; ++i) sums[0] += p[i] * g[i];
    float along = 0;
    for (float one : sums) along += one;
    if (to_bias) {
        for (int64_t j = 0; j < keys; ++j) {
            const float own = p[j] * (g[j] - along);
            to_bias[j] += own;
            g[j] = own * scale;
        }
    } else {
        for (int64_t j = 0; j < keys; ++j) g[j] = p[j] * (g[j] - along) * scale;
    }
}

/// A packed tensor [tokens, heads, size] by address; x and what is written both, which is const only in name.
struct Packed {
    float *data;
    int64_t heads, size;

    explicit Packed(const at::Tensor &x)
        : data(static_cast<float *>(const_cast<void *>(x.const_data_ptr()))), heads(x.size(1)), size(x.size(2)) {}

    int64_t stride() const { return heads * size; }
    float *at(int64_t token, int64_t head) const { return data + token * stride() + head * size; }
};

/// Some queries of a tile with one head.
struct Part {
    size_t row;
    /// The tile's number in its row.
    size_t number;
    const AttentionTile &tile;
    /// Counted within the tile.
    int64_t begin, end;
    int64_t head;

    int64_t queries() const { return end - begin; }
    /// Where the part begins in [heads, queries, keys] of the tile.
    int64_t place() const { return (head * tile.queries + begin) * tile.keys; }
};

/// A bias or its gradient, [heads, queries, keys], by address.
struct Bias {
    float *data = nullptr;
    int64_t head_stride = 0, query_stride = 0;
    /// Columns are those of the longest prefix.
    int64_t longest_prefix = 0;

    Bias(const at::Tensor &x, const AttentionSettings &settings) {
        if (!x.defined()) return;
        longest_prefix = settings.longest_prefix();
        data = static_cast<float *>(const_cast<void *>(x.const_data_ptr()));
        head_stride = x.stride(0);
        query_stride = x.stride(1);
    }

    /// What belongs to a query of a part; NULL where there is none.
    float *row(const AttentionSettings &settings, const Part &part, int64_t query) const {
        if (!data) return nullptr;
        return data + part.head * head_stride + (part.tile.query + part.begin + query) * query_stride +
               longest_prefix - settings.prefix(part.row) + part.tile.key;
    }
};

/// What both passes read.
struct Inputs {
    const AttentionSettings &settings;
    Packed q, k, v;
    Bias bias;

    Inputs(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias, const AttentionSettings &settings)
        : settings(settings), q(q), k(k), v(v), bias(bias, settings) {}

    int64_t queries_of_a_key() const { return q.heads / k.heads; }
};

/// For queries that see nothing.
void set_zero(const Packed &x, int64_t first, const Part &part) {
    for (int64_t i = 0; i < part.queries(); ++i) std::fill_n(x.at(first + i, part.head), x.size, 0.0f);
}

/// softmax of the part's scores, [queries, keys of the tile], before dropout.
void make_probabilities(const Inputs &in, const Part &part, float *scores) {
    const AttentionSettings &settings = in.settings;
    const AttentionTile &tile = part.tile;
    const int64_t first = settings.query_offsets[part.row] + tile.query + part.begin;
    const int64_t from = settings.key_offsets[part.row] + tile.key;
    serial_product(false, true, part.queries(), tile.keys, in.q.size, 1, in.q.at(first, part.head), in.q.stride(),
                   in.k.at(from, part.head / in.queries_of_a_key()), in.k.stride(), 0, scores, tile.keys);
    const int64_t before = settings.prefix(part.row) - tile.key;
    for (int64_t i = 0; i < part.queries(); ++i) {
        int64_t seen = 0, end = tile.keys;
        if (settings.causal) {
            // What the query itself is among the tile's keys.
            const int64_t own = before + tile.query + part.begin + i;
            end = own + 1;
            if (settings.window > 0) seen = std::max<int64_t>(0, end - settings.window);
        }
        float *own = scores + i * tile.keys;
        const float *bias = in.bias.row(settings, part, i);
        std::fill(own, own + seen, 0.0f);
        softmax_row(own + seen, bias ? bias + seen : nullptr, 1, static_cast<float>(settings.scale), end - seen);
        std::fill(own + end, own + tile.keys, 0.0f);
    }
}

/// A row's queries that share a head of keys.
struct Item {
    size_t row;
    int64_t group;
};

template <typename Body> void for_parts(const Inputs &in, const Item &item, Body body) {
    const std::vector<AttentionTile> tiles = tiles_of(in.settings, item.row);
    for (size_t number = 0; number < tiles.size(); ++number) {
        const AttentionTile &tile = tiles[number];
        for (int64_t begin = 0; begin < tile.queries; begin += step) {
            for (int64_t each = 0; each < in.queries_of_a_key(); ++each) {
                body(Part{item.row, number, tile, begin, std::min(begin + step, tile.queries),
                          item.group * in.queries_of_a_key() + each});
            }
        }
    }
}

/// Calls `body(items, scratch)` on threads that take the next of the lists when they are done with one, the largest first.
template <typename Body> void on_all(const Inputs &in, const std::vector<std::vector<Item>> &lists, Body body) {
    std::vector<double> costs;
    double total = 0;
    for (const auto &list : lists) {
        double cost = 0;
        for (const Item &item : list) {
            cost += static_cast<double>(in.settings.queries(item.row)) * static_cast<double>(in.settings.keys(item.row));
        }
        total += cost;
        costs.push_back(cost);
    }
    std::vector<size_t> order(lists.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
    const auto worth = static_cast<int64_t>(total * static_cast<double>(in.q.size * in.queries_of_a_key()) / grain) + 1;
    const int64_t threads = std::min<int64_t>({worth, static_cast<int64_t>(lists.size()), at::get_num_threads()});
    std::atomic<size_t> next{0};
    ctorch::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
        std::vector<float> scratch;
        for (size_t i = next++; i < order.size(); i = next++) body(lists[order[i]], scratch);
    });
}

/// One item a list.
std::vector<std::vector<Item>> apart(const AttentionSettings &settings, int64_t groups) {
    std::vector<std::vector<Item>> lists;
    for (size_t row = 0; row < settings.rows(); ++row) {
        for (int64_t group = 0; group < groups; ++group) lists.push_back({{row, group}});
    }
    return lists;
}

/// All rows of a head, which write to the same bias.
std::vector<std::vector<Item>> by_head(const AttentionSettings &settings, int64_t groups) {
    std::vector<std::vector<Item>> lists(static_cast<size_t>(groups));
    for (size_t row = 0; row < settings.rows(); ++row) {
        for (int64_t group = 0; group < groups; ++group) lists[static_cast<size_t>(group)].push_back({row, group});
    }
    return lists;
}

bool is_plain(const at::Tensor &x) {
    return (x.is_cpu() || x.is_meta()) && x.scalar_type() == at::kFloat && x.is_contiguous();
}

}  // namespace

namespace ctorch {

bool is_for_attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                           const AttentionSettings &settings) {
    return is_plain(q) && is_plain(k) && is_plain(v) && settings.softcap == 0 && has_fast_blas() &&
           (!bias.defined() || ((bias.is_cpu() || bias.is_meta()) && bias.scalar_type() == at::kFloat && bias.dim() == 3 &&
                                bias.stride(2) == 1));
}

void attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                    const AttentionSettings &settings, at::Tensor &output) {
    if (q.is_meta()) return;
    const Inputs in(q, k, v, bias, settings);
    const Packed y(output);
    on_all(in, apart(settings, in.k.heads), [&](const std::vector<Item> &items, std::vector<float> &scores) {
        for (const Item &item : items) {
            for_parts(in, item, [&](const Part &part) {
                const int64_t keys = part.tile.keys, count = part.queries() * keys;
                const int64_t first = settings.query_offsets[part.row] + part.tile.query + part.begin;
                if (keys == 0) return set_zero(y, first, part);
                scores.resize(std::max(scores.size(), static_cast<size_t>(count)));
                make_probabilities(in, part, scores.data());
                if (settings.dropout > 0) {
                    drop_part(scores.data(), scores.data(), part.place(), count, settings.dropout,
                              tile_seed(settings.seed, part.row, part.number));
                }
                serial_product(false, false, part.queries(), in.v.size, keys, 1, scores.data(), keys,
                               in.v.at(settings.key_offsets[part.row] + part.tile.key, item.group), in.v.stride(), 0,
                               y.at(first, part.head), y.stride());
            });
        }
    });
}

void attention_rows_backward(const at::Tensor &gradient, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                             const at::Tensor &bias, const AttentionSettings &settings, at::Tensor &to_q, at::Tensor &to_k,
                             at::Tensor &to_v, at::Tensor &to_bias) {
    // Tiles add to the gradients of keys that several of them see.
    to_k.zero_();
    to_v.zero_();
    if (q.is_meta()) return;
    const Inputs in(q, k, v, bias, settings);
    const Packed g(gradient), dq(to_q), dk(to_k), dv(to_v);
    const Bias db(to_bias, settings);
    const auto lists = db.data ? by_head(settings, in.k.heads) : apart(settings, in.k.heads);
    on_all(in, lists, [&](const std::vector<Item> &items, std::vector<float> &scratch) {
        for (const Item &item : items) {
            for_parts(in, item, [&](const Part &part) {
                const int64_t keys = part.tile.keys, queries = part.queries(), count = queries * keys;
                const int64_t first = settings.query_offsets[part.row] + part.tile.query + part.begin;
                if (keys == 0) return set_zero(dq, first, part);
                const bool drops = settings.dropout > 0;
                scratch.resize(std::max(scratch.size(), static_cast<size_t>((drops ? 3 : 2) * count)));
                float *p = scratch.data(), *s = p + count, *used = drops ? s + count : p;
                const uint64_t seed = tile_seed(settings.seed, part.row, part.number);
                make_probabilities(in, part, p);
                if (drops) drop_part(p, used, part.place(), count, settings.dropout, seed);
                const int64_t from = settings.key_offsets[part.row] + part.tile.key;
                const float *upstream = g.at(first, part.head);
                serial_product(true, false, keys, in.v.size, queries, 1, used, keys, upstream, g.stride(), 1,
                               dv.at(from, item.group), dv.stride());
                serial_product(false, true, queries, keys, in.v.size, 1, upstream, g.stride(), in.v.at(from, item.group),
                               in.v.stride(), 0, s, keys);
                if (drops) drop_part(s, s, part.place(), count, settings.dropout, seed);
                for (int64_t i = 0; i < queries; ++i) {
                    softmax_backward(p + i * keys, s + i * keys, db.row(settings, part, i), static_cast<float>(settings.scale), keys);
                }
                serial_product(false, false, queries, in.q.size, keys, 1, s, keys, in.k.at(from, item.group), in.k.stride(), 0,
                               dq.at(first, part.head), dq.stride());
                serial_product(true, false, keys, in.q.size, queries, 1, s, keys, in.q.at(first, part.head), in.q.stride(), 1,
                               dk.at(from, item.group), dk.stride());
            });
        }
    });
}

}  // namespace ctorch
