// Variable-length attention over packed sequences (end to end, without padding) that never stores the score matrix:
// the backward pass recomputes the scores tile by tile (as in Dao et al. 2022). A tile is a sequence, or, with a
// causal mask or a sliding window, a block of its queries with the keys that at least one of them sees, so that few
// masked scores are computed. Grouped-query attention doesn't repeat keys: the query heads of one key head are
// stacked along the rows of the matmuls. On the CPU, in fp32 and bf16, the kernels of `AttentionRows.cpp` do all of
// this where they apply.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_backward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/_softmax_backward_data.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tanh_backward.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>

#include "AttentionRows.hpp"
#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "DecodeAttention.hpp"
#include "Dropout.hpp"
#include "Precision.hpp"

using namespace ctorch;
using ckernels::AttentionTile;
using ckernels::skipped_columns;
using ckernels::tile_queries;
using ckernels::tile_seed;
using ckernels::tiles_of;

namespace {

/// Tokens first ..< first + count of packed x [tokens, heads, size], as [groups, heads / groups · count, size].
at::Tensor grouped(const at::Tensor &x, int64_t first, int64_t count, int64_t groups) {
    at::Tensor part = x.narrow(0, first, count);
    int64_t each = x.size(1) / groups, size = x.size(2);
    if (each == 1) return part.transpose(0, 1);
    return part.view({count, groups, each, size}).permute({1, 2, 0, 3}).reshape({groups, each * count, size});
}

/// [heads, queries, keys] as [groups, heads / groups · queries, keys].
at::Tensor by_group(const at::Tensor &x, int64_t groups) { return x.view({groups, x.size(0) / groups * x.size(1), x.size(2)}); }

/// The inverse of `grouped`: writes `values` to those tokens of x.
void scatter(at::Tensor x, int64_t first, int64_t count, int64_t groups, const at::Tensor &values) {
    at::Tensor part = x.narrow(0, first, count);
    int64_t each = x.size(1) / groups, size = x.size(2);
    if (each == 1) {
        part.transpose(0, 1).copy_(values);
    } else {
        part.view({count, groups, each, size}).copy_(values.view({groups, each, count, size}).permute({2, 0, 1, 3}));
    }
}

/// −∞ above (future) and below (past) the diagonal, [tile queries, tile queries]: the building blocks of all masks.
struct Masks {
    at::Tensor future, past;

    Masks(const at::Tensor &like, const AttentionSettings &settings) {
        if (!settings.causal) return;
        int64_t longest = 0;
        for (size_t row = 0; row < settings.rows(); ++row) longest = std::max(longest, settings.queries(row));
        int64_t size = std::min(longest, tile_queries(settings));
        at::Tensor all = at::full({size, size}, -std::numeric_limits<double>::infinity(), like.options());
        future = all.triu(1);
        if (settings.window > 0) past = all.tril(-1);
    }

    /// Scores [heads, queries, keys] of a causal tile.
    void apply(at::Tensor &scores, const AttentionTile &tile) const {
        // The tile's last keys are the tokens of its own queries.
        int64_t count = tile.queries;
        scores.narrow(2, tile.keys - count, count).add_(future.narrow(0, 0, count).narrow(1, 0, count));
        int64_t beyond = count - tile.reach;
        if (beyond == 0) return;
        // Query reach − 1 is the last that sees the first key; the next one misses one key, the one after it two, and
        // so on.
        scores.narrow(1, tile.reach - 1, beyond + 1)
            .narrow(2, 0, beyond + 1)
            .add_(past.narrow(0, 0, beyond + 1).narrow(1, 0, beyond + 1));
    }

    /// Scores of a tile whose queries see `window` keys in each direction. The first query's own token is key `own`.
    static void apply_window(at::Tensor &scores, int64_t own, int64_t window) {
        at::Tensor all = at::full({scores.size(1), scores.size(2)}, -std::numeric_limits<double>::infinity(), scores.options());
        scores.add_(all.triu(own + window)).add_(all.tril(own - window));
    }
};

/// softmax(cap(scale · q kᵀ) + bias) of a tile, [heads, queries, keys], before dropout. The sequence's first key has the
/// bias's column `skipped`. With sinks [heads], the softmax has a further column, last, that no value belongs to (Xiao et al.
/// 2023). `capped`, unless NULL, receives tanh(scores / cap).
at::Tensor probabilities(const at::Tensor &q, const at::Tensor &k, int64_t heads, const AttentionTile &tile,
                         const at::Tensor &bias, const at::Tensor &sinks, int64_t skipped, const Masks &masks,
                         const AttentionSettings &settings, at::Tensor *capped = nullptr) {
    at::Tensor scores = at::bmm(q, k.transpose(1, 2)).view({heads, tile.queries, tile.keys});
    if (settings.softcap > 0) {
        scores.mul_(settings.scale / settings.softcap).tanh_();
        if (capped != nullptr) {
            *capped = scores;
            scores = scores * settings.softcap;
        } else {
            scores.mul_(settings.softcap);
        }
    } else if (settings.scale != 1) {
        scores.mul_(settings.scale);
    }
    if (bias.defined()) {
        scores.add_(bias.narrow(1, tile.query, tile.queries).narrow(2, skipped + tile.key, tile.keys));
    }
    if (!settings.causal && settings.window > 0) Masks::apply_window(scores, tile.own, settings.window);
    if (settings.causal && tile.queries > 0) masks.apply(scores, tile);
    if (sinks.defined()) {
        return at::cat({scores, sinks.view({heads, 1, 1}).expand({heads, tile.queries, 1})}, -1).softmax(-1);
    }
    return at::softmax_out(scores, scores, -1);
}

/// The weights of the keys without a sink's, contiguous.
at::Tensor of_keys(const at::Tensor &weights, const AttentionTile &tile) {
    return weights.size(2) == tile.keys ? weights : weights.narrow(2, 0, tile.keys).contiguous();
}

class PackedAttention : public AutogradNode {
public:
    explicit PackedAttention(AttentionSettings settings) : settings(std::move(settings)) {}

    /// Of q, k, v, a bias and sinks [heads], which may be undefined.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2], &bias = inputs[3], &sinks = inputs[4];
        at::Tensor output = at::empty_like(q);
        if (!sinks.defined() && is_for_attention_rows(q, k, v, bias, settings)) {
            attention_rows(q, k, v, bias, settings, output);
        } else if (is_upcast(q)) {
            at::Tensor upcast = at::empty_like(q, at::kFloat);
            attend(in_type(q, at::kFloat), in_type(k, at::kFloat), in_type(v, at::kFloat), in_type(bias, at::kFloat),
                   in_type(sinks, at::kFloat), settings, upcast);
            output.copy_(upcast);
        } else {
            attend(q, k, v, bias, sinks, settings, output);
        }
        if (context) context->save({q, k, v, bias, sinks});
        return {output};
    }

    /// Whether libtorch's operations run in fp32. On the CPU its half-precision operations round scores,
    /// probabilities and their gradients after each step, and the matmuls too where the processor multiplies in bf16.
    static bool is_upcast(const at::Tensor &q) { return (q.is_cpu() || q.is_meta()) && is_half(q.scalar_type()); }

    /// With libtorch's operations, for all types and devices.
    static void attend(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                       const at::Tensor &sinks, const AttentionSettings &settings, at::Tensor &output) {
        Masks masks(q, settings);
        int64_t heads = q.size(1), groups = k.size(1);
        for (size_t row = 0; row < settings.rows(); ++row) {
            int64_t skipped = skipped_columns(settings, bias.defined(), row);
            size_t number = 0;
            for (const AttentionTile &tile : tiles_of(settings, row)) {
                int64_t first = settings.query_offsets[row] + tile.query, from = settings.key_offsets[row] + tile.key;
                at::Tensor weights =
                    of_keys(probabilities(grouped(q, first, tile.queries, groups), grouped(k, from, tile.keys, groups), heads,
                                          tile, bias, sinks, skipped, masks, settings),
                            tile);
                if (settings.dropout > 0) {
                    drop_in_place(weights, settings.dropout, tile_seed(settings.seed, row, number));
                }
                at::Tensor mixed = at::bmm(by_group(weights, groups), grouped(v, from, tile.keys, groups));
                scatter(output, first, tile.queries, groups, mixed);
                ++number;
            }
        }
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3], &sinks = saved[4];
        at::Tensor gradient = gradients[0].contiguous();
        at::Tensor to_q = at::empty_like(q), to_k = at::empty_like(k), to_v = at::empty_like(v), to_bias, to_sinks;
        if (bias.defined() && bias.requires_grad()) to_bias = at::zeros_like(bias);
        if (sinks.defined() && sinks.requires_grad()) to_sinks = at::zeros_like(sinks);
        if (!sinks.defined() && is_for_attention_rows(q, k, v, bias, settings)) {
            attention_rows_backward(gradient, q, k, v, bias, settings, to_q, to_k, to_v, to_bias);
            return {to_q, to_k, to_v, to_bias, to_sinks};
        }
        if (is_upcast(q)) {
            const auto upcast = [](const at::Tensor &x) { return in_type(x, at::kFloat); };
            at::Tensor q_sum = upcast(to_q), k_sum = upcast(to_k), v_sum = upcast(to_v), bias_sum = upcast(to_bias),
                       sink_sum = upcast(to_sinks);
            attend_backward(upcast(gradient), upcast(q), upcast(k), upcast(v), upcast(bias), upcast(sinks), settings, q_sum,
                            k_sum, v_sum, bias_sum, sink_sum);
            to_q.copy_(q_sum);
            to_k.copy_(k_sum);
            to_v.copy_(v_sum);
            if (to_bias.defined()) to_bias.copy_(bias_sum);
            if (to_sinks.defined()) to_sinks.copy_(sink_sum);
        } else {
            attend_backward(gradient, q, k, v, bias, sinks, settings, to_q, to_k, to_v, to_bias, to_sinks);
        }
        return {to_q, to_k, to_v, to_bias, to_sinks};
    }

    static void attend_backward(const at::Tensor &gradient, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                                const at::Tensor &bias, const at::Tensor &sinks, const AttentionSettings &settings,
                                at::Tensor &to_q, at::Tensor &to_k, at::Tensor &to_v, at::Tensor &to_bias, at::Tensor &to_sinks) {
        Masks masks(q, settings);
        int64_t heads = q.size(1), groups = k.size(1);
        for (size_t row = 0; row < settings.rows(); ++row) {
            int64_t skipped = skipped_columns(settings, bias.defined(), row);
            std::vector<AttentionTile> tiles = tiles_of(settings, row);
            bool is_whole = tiles.size() == 1 && tiles[0].keys == settings.keys(row);
            if (!is_whole) {
                to_k.narrow(0, settings.key_offsets[row], settings.keys(row)).zero_();
                to_v.narrow(0, settings.key_offsets[row], settings.keys(row)).zero_();
            }
            size_t number = 0;
            for (const AttentionTile &tile : tiles) {
                int64_t first = settings.query_offsets[row] + tile.query, from = settings.key_offsets[row] + tile.key;
                at::Tensor query = grouped(q, first, tile.queries, groups), key = grouped(k, from, tile.keys, groups);
                at::Tensor value = grouped(v, from, tile.keys, groups);
                at::Tensor upstream = grouped(gradient, first, tile.queries, groups), capped;
                const at::Tensor all = probabilities(query, key, heads, tile, bias, sinks, skipped, masks, settings,
                                                     settings.softcap > 0 ? &capped : nullptr);
                const at::Tensor weights = of_keys(all, tile);
                at::Tensor dropped_weights = weights;
                at::Tensor to_weights = at::bmm(upstream, value.transpose(1, 2)).view(weights.sizes());
                if (settings.dropout > 0) {
                    uint64_t seed = tile_seed(settings.seed, row, number);
                    dropped_weights = dropped(weights, settings.dropout, seed);
                    drop_in_place(to_weights, settings.dropout, seed);
                }
                add_gradient(to_v, from, tile.keys, is_whole,
                             at::bmm(by_group(dropped_weights, groups).transpose(1, 2), upstream));
                at::Tensor to_scores;
                if (sinks.defined()) {
                    // Nothing depends on a sink's own weight.
                    const at::Tensor to_all = at::cat({to_weights, at::zeros_like(to_weights.narrow(2, 0, 1))}, -1);
                    to_scores = at::_softmax_backward_data(to_all, all, -1, all.scalar_type());
                    if (to_sinks.defined()) to_sinks.add_(to_scores.select(2, tile.keys).sum(1));
                    to_scores = to_scores.narrow(2, 0, tile.keys).contiguous();
                } else {
                    to_scores = at::_softmax_backward_data(to_weights, weights, -1, weights.scalar_type());
                }
                if (to_bias.defined()) {
                    to_bias.narrow(1, tile.query, tile.queries).narrow(2, skipped + tile.key, tile.keys).add_(to_scores);
                }
                if (capped.defined()) at::tanh_backward_out(to_scores, to_scores, capped);
                if (settings.scale != 1) to_scores.mul_(settings.scale);
                to_scores = by_group(to_scores, groups);
                scatter(to_q, first, tile.queries, groups, at::bmm(to_scores, key));
                add_gradient(to_k, from, tile.keys, is_whole, at::bmm(to_scores.transpose(1, 2), query));
                ++number;
            }
        }
    }

    /// Adds `part` [groups, keys, size] to packed x, or overwrites x if it is the sequence's only contribution.
    static void add_gradient(at::Tensor &x, int64_t first, int64_t count, bool is_whole, const at::Tensor &part) {
        at::Tensor target = x.narrow(0, first, count).transpose(0, 1);
        if (is_whole) target.copy_(part);
        else target.add_(part);
    }

private:
    AttentionSettings settings;
};

/// On a GPU: libtorch's variable-length flash attention (Dao 2023), which has no bias and no soft cap. Its causal
/// mask is aligned to the last key, as here: all queries see the prefix.
class FlashAttention : public AutogradNode {
public:
    explicit FlashAttention(AttentionSettings settings) : settings(std::move(settings)) {}

    static bool takes(const at::Tensor &q, const at::Tensor &bias, const AttentionSettings &settings) {
        return q.is_cuda() && is_half(q.scalar_type()) && !bias.defined() && settings.softcap == 0 && settings.dropout == 0 &&
               q.size(2) <= 256 && q.size(2) % 8 == 0;
    }

    /// Most queries and most keys of a sequence, at least 1.
    static std::pair<int64_t, int64_t> longest_of(const AttentionSettings &settings) {
        int64_t longest = 1, longest_keys = 1;
        for (size_t row = 0; row < settings.rows(); ++row) {
            longest = std::max(longest, settings.queries(row));
            longest_keys = std::max(longest_keys, settings.keys(row));
        }
        return {longest, longest_keys};
    }

    /// Keys before and after a query's own that it sees; none for no limit.
    static std::pair<c10::optional<int64_t>, c10::optional<int64_t>> window_of(const AttentionSettings &settings) {
        if (settings.window <= 0) return {};
        return {settings.window - 1, settings.causal ? 0 : settings.window - 1};
    }

    static at::Tensor offsets(const std::vector<int64_t> &values, const at::Tensor &like) {
        return at::tensor(values, at::dtype(at::kInt)).to(like.device(), true);
    }

    /// Of q, k and v.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &q = inputs[0], &k = inputs[1], &v = inputs[2];
        const auto [longest, longest_keys] = longest_of(settings);
        at::Tensor of_queries = offsets(settings.query_offsets, q);
        at::Tensor of_keys = settings.key_offsets == settings.query_offsets ? of_queries : offsets(settings.key_offsets, q);
        const auto [left, right] = window_of(settings);
        auto [output, normalizer, state, unused, mask] = at::_flash_attention_forward(
            q, k, v, of_queries, of_keys, longest, longest_keys, 0.0, settings.causal, false, settings.scale, left, right);
        if (context) context->save({q, k, v, output, normalizer, of_queries, of_keys, state, unused});
        return {output};
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const auto [longest, longest_keys] = longest_of(settings);
        const auto [left, right] = window_of(settings);
        auto [to_q, to_k, to_v] = at::_flash_attention_backward(gradients[0].contiguous(), saved[0], saved[1], saved[2], saved[3],
                                                                saved[4], saved[5], saved[6], longest, longest_keys, 0.0,
                                                                settings.causal, saved[7], saved[8], settings.scale, left, right);
        return {to_q, to_k, to_v};
    }

private:
    AttentionSettings settings;
};

/// The kernels use raw pointers, so shapes and offsets are checked first.
void check(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
           const AttentionSettings &settings) {
    TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(2) == k.size(2), "shape mismatch: queries ",
                q.sizes(), ", keys ", k.sizes(), ", values ", v.sizes());
    TORCH_CHECK(k.size(1) > 0 && q.size(1) % k.size(1) == 0, q.size(1), " query heads are not a multiple of ", k.size(1),
                " key heads");
    const auto is_within = [](const std::vector<int64_t> &offsets, int64_t tokens) {
        return offsets.front() == 0 && offsets.back() == tokens && std::is_sorted(offsets.begin(), offsets.end());
    };
    TORCH_CHECK(is_within(settings.query_offsets, q.size(0)) && is_within(settings.key_offsets, k.size(0)),
                "the offsets don't partition ", q.size(0), " queries and ", k.size(0), " keys");
    for (size_t row = 0; row < settings.rows(); ++row) {
        TORCH_CHECK((!settings.causal && settings.window == 0) || settings.prefix(row) >= 0, "sequence ", row, " has ",
                    settings.queries(row), " causal queries but only ", settings.keys(row), " keys");
        TORCH_CHECK(!bias.defined() || settings.queries(row) == 0 ||
                        (bias.dim() == 3 && bias.size(0) == q.size(1) && bias.size(1) >= settings.queries(row) &&
                         bias.size(2) >= skipped_columns(settings, true, row) + settings.keys(row)),
                    "a bias of shape ", bias.sizes(), " for ", settings.queries(row), " queries, ", settings.keys(row),
                    " keys and ", q.size(1), " heads");
    }
}

/// A bias by key, [heads, keys], as one that all queries share, [heads, longest sequence's queries, keys], without a
/// copy.
at::Tensor by_query(const at::Tensor &bias, const AttentionSettings &settings) {
    TORCH_CHECK(!bias.requires_grad(), "a bias by key has no gradient");
    int64_t longest = 0;
    for (size_t row = 0; row < settings.rows(); ++row) longest = std::max(longest, settings.queries(row));
    return bias.unsqueeze(1).expand({bias.size(0), longest, bias.size(1)});
}

}  // namespace

extern "C" {

CTTensor *ct_packed_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *bias,
                              const int64_t *query_offsets, const int64_t *key_offsets, int rows, bool causal, double scale,
                              double dropout, uint64_t seed, int64_t window, double softcap, const CTTensor *sinks) {
    return tensor_or_error([&]() -> at::Tensor {
        AttentionSettings settings{{query_offsets, query_offsets + rows + 1},
                                   {key_offsets, key_offsets + rows + 1},
                                   causal,
                                   scale,
                                   dropout,
                                   seed,
                                   window,
                                   softcap};
        at::Tensor added = unbox(bias);
        if (added.defined() && added.dim() == 2) {
            added = by_query(added, settings);
            settings.bias_by_key = true;
        }
        check(unbox(q), unbox(k), unbox(v), added, settings);
        TORCH_CHECK(!unbox(sinks).defined() || (unbox(sinks).dim() == 1 && unbox(sinks).size(0) == unbox(q).size(1)),
                    "sinks of shape ", unbox(sinks).sizes(), " for ", unbox(q).size(1), " heads");
        at::ScalarType type = compute_type(unbox(q));
        auto typed = [type](const CTTensor *t) { return in_type(unbox(t), type).contiguous(); };
        at::Tensor queries = typed(q), keys = typed(k), values = typed(v);
        const at::Tensor drains = in_type(unbox(sinks), type);
        WithoutAutocast guard;
        // In prefill the last layer may have no queries.
        if (queries.size(0) == 0) return queries;
        if (!drains.defined() && FlashAttention::takes(queries, added, settings)) {
            return applied(FlashAttention(settings), {queries, keys, values});
        }
        return applied(PackedAttention(std::move(settings)), {queries, keys, values, added, drains});
    });
}

CTTensor *ct_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *mask, double scale,
                       double softcap, const CTTensor *sinks) {
    return tensor_or_error([&]() -> at::Tensor {
        at::ScalarType type = unbox(k).scalar_type();
        at::Tensor bias = in_type(unbox(mask), type), query = in_type(unbox(q), type);
        WithoutAutocast guard;
        if (softcap > 0) {
            at::Tensor capped = at::matmul(query, unbox(k).transpose(-2, -1)).mul_(scale / softcap).tanh_();
            at::Tensor scores = capped * softcap;
            if (bias.defined()) scores.add_(bias);
            return at::matmul(scores.softmax(-1), unbox(v));
        }
        if (unbox(sinks).defined()) {
            at::Tensor scores = at::matmul(query, unbox(k).transpose(-2, -1)).mul_(scale);
            if (bias.defined()) scores.add_(bias);
            const at::Tensor column =
                in_type(unbox(sinks), type).view({1, query.size(1), query.size(2), 1}).expand({query.size(0), -1, -1, 1});
            const at::Tensor weights = at::cat({scores, column}, -1).softmax(-1).narrow(-1, 0, scores.size(-1));
            return at::matmul(weights, unbox(v));
        }
        if (bias.defined() && bias.is_cuda()) {
            // The GPU's kernel reads 16 bytes at a time, also from rows of a sliced mask: a copy with padded rows.
            int64_t width = bias.size(-1), step = 16 / bias.element_size();
            int64_t padded = (width + step - 1) / step * step;
            at::Tensor copy = at::empty({bias.size(0), bias.size(1), bias.size(2), padded}, bias.options());
            copy.narrow(3, 0, width).copy_(bias);
            bias = copy.narrow(3, 0, width);
        }
        if (is_for_decode_attention(query, unbox(k), unbox(v), bias)) {
            return decode_attention(query, unbox(k), unbox(v), bias, scale);
        }
        return at::scaled_dot_product_attention(query, unbox(k), unbox(v),
                                                bias.defined() ? c10::optional<at::Tensor>(bias) : c10::nullopt, 0, false, scale);
    });
}
}
