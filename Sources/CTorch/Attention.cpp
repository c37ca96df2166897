// Attention over rows that lie packed end to end, without a padded copy and without keeping any matrix of
// scores: the backward pass computes them again, row by row (as in Dao et al. 2022, with a row as the tile).
#include <torch/csrc/autograd/custom_function.h>

#include "Bridge.hpp"
#include "Dropout.hpp"

using namespace ctorch;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

namespace {

struct Settings {
    std::vector<int64_t> query_offsets, key_offsets;
    bool causal;
    double scale, dropout;
    uint64_t seed;

    size_t rows() const { return query_offsets.size() - 1; }
    int64_t queries(size_t row) const { return query_offsets[row + 1] - query_offsets[row]; }
    /// Keys of a row that come before its first query: a prefix.
    int64_t prefix(size_t row) const { return key_offsets[row + 1] - key_offsets[row] - queries(row); }
    int64_t longest_prefix() const {
        int64_t longest = 0;
        for (size_t row = 0; row < rows(); ++row) longest = std::max(longest, prefix(row));
        return longest;
    }
};

/// One row of packed x [tokens, heads, size] as [heads, length, size].
at::Tensor row_of(const at::Tensor &x, const std::vector<int64_t> &offsets, size_t row) {
    return x.narrow(0, offsets[row], offsets[row + 1] - offsets[row]).transpose(0, 1);
}

/// Each row has its own mask, drawn from its own seed.
uint64_t row_seed(uint64_t seed, size_t row) { return seed + 0x9E3779B97F4A7C15ULL * (row + 1); }

/// softmax(scale · q kᵀ + bias) of one row, [heads, queries, keys], before dropout. `skipped` columns of the bias
/// and of the mask belong to longer prefixes than this row has.
at::Tensor probabilities(const at::Tensor &q, const at::Tensor &k, const at::Tensor &bias, const at::Tensor &future,
                         int64_t skipped, const Settings &settings) {
    at::Tensor scores = at::bmm(q, k.transpose(1, 2));
    if (settings.scale != 1) scores.mul_(settings.scale);
    int64_t queries = scores.size(1), keys = scores.size(2);
    if (bias.defined()) scores.add_(bias.narrow(1, 0, queries).narrow(2, skipped, keys));
    if (settings.causal) scores.add_(future.narrow(0, 0, queries).narrow(1, skipped, keys));
    return at::softmax_out(scores, scores, -1);
}

/// −∞ where a query would look ahead, 0 elsewhere; [longest, longest prefix + longest], shared by all rows.
at::Tensor future_mask(const at::Tensor &like, const Settings &settings) {
    if (!settings.causal) return at::Tensor();
    int64_t longest = 0, prefix = settings.longest_prefix();
    for (size_t row = 0; row < settings.rows(); ++row) longest = std::max(longest, settings.queries(row));
    return at::full({longest, prefix + longest}, -std::numeric_limits<double>::infinity(), like.options())
        .triu_(1 + prefix);
}

/// Where a row's columns begin in the bias and in the mask, which are made for the longest prefix.
int64_t skipped_columns(const Settings &settings, bool is_aligned, size_t row) {
    return is_aligned ? settings.longest_prefix() - settings.prefix(row) : 0;
}

struct PackedAttention : public Function<PackedAttention> {
    static at::Tensor forward(AutogradContext *context, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                              const c10::optional<at::Tensor> &optional_bias, const Settings &settings) {
        at::Tensor bias = optional_bias.value_or(at::Tensor());
        at::Tensor output = at::empty_like(q);
        at::Tensor future = future_mask(q, settings);
        bool is_aligned = bias.defined() || settings.causal;
        for (size_t row = 0; row < settings.rows(); ++row) {
            at::Tensor weights =
                probabilities(row_of(q, settings.query_offsets, row), row_of(k, settings.key_offsets, row), bias,
                              future, skipped_columns(settings, is_aligned, row), settings);
            if (settings.dropout > 0) drop_in_place(weights, settings.dropout, row_seed(settings.seed, row));
            at::Tensor target = row_of(output, settings.query_offsets, row);
            target.copy_(at::bmm(weights, row_of(v, settings.key_offsets, row)));
        }
        context->save_for_backward({q, k, v, bias});
        context->saved_data["query_offsets"] = settings.query_offsets;
        context->saved_data["key_offsets"] = settings.key_offsets;
        context->saved_data["causal"] = settings.causal;
        context->saved_data["scale"] = settings.scale;
        context->saved_data["dropout"] = settings.dropout;
        context->saved_data["seed"] = static_cast<int64_t>(settings.seed);
        return output;
    }

    static variable_list backward(AutogradContext *context, variable_list gradients) {
        auto saved = context->get_saved_variables();
        const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &bias = saved[3];
        Settings settings{context->saved_data["query_offsets"].toIntVector(),
                          context->saved_data["key_offsets"].toIntVector(),
                          context->saved_data["causal"].toBool(),
                          context->saved_data["scale"].toDouble(),
                          context->saved_data["dropout"].toDouble(),
                          static_cast<uint64_t>(context->saved_data["seed"].toInt())};
        at::Tensor gradient = gradients[0].contiguous();
        at::Tensor to_q = at::empty_like(q), to_k = at::empty_like(k), to_v = at::empty_like(v), to_bias;
        if (bias.defined() && bias.requires_grad()) to_bias = at::zeros_like(bias);
        at::Tensor future = future_mask(q, settings);
        bool is_aligned = bias.defined() || settings.causal;
        for (size_t row = 0; row < settings.rows(); ++row) {
            int64_t skipped = skipped_columns(settings, is_aligned, row);
            at::Tensor query = row_of(q, settings.query_offsets, row), key = row_of(k, settings.key_offsets, row);
            at::Tensor value = row_of(v, settings.key_offsets, row);
            at::Tensor upstream = row_of(gradient, settings.query_offsets, row);
            at::Tensor weights = probabilities(query, key, bias, future, skipped, settings);
            at::Tensor dropped_weights = weights;
            at::Tensor to_weights = at::bmm(upstream, value.transpose(1, 2));
            if (settings.dropout > 0) {
                dropped_weights = dropped(weights, settings.dropout, row_seed(settings.seed, row));
                drop_in_place(to_weights, settings.dropout, row_seed(settings.seed, row));
            }
            row_of(to_v, settings.key_offsets, row).copy_(at::bmm(dropped_weights.transpose(1, 2), upstream));
            at::Tensor to_scores = at::_softmax_backward_data(to_weights, weights, -1, weights.scalar_type());
            if (to_bias.defined()) {
                to_bias.narrow(1, 0, to_scores.size(1)).narrow(2, skipped, to_scores.size(2)).add_(to_scores);
            }
            if (settings.scale != 1) to_scores.mul_(settings.scale);
            row_of(to_q, settings.query_offsets, row).copy_(at::bmm(to_scores, key));
            row_of(to_k, settings.key_offsets, row).copy_(at::bmm(to_scores.transpose(1, 2), query));
        }
        return {to_q, to_k, to_v, to_bias, at::Tensor()};
    }
};

}  // namespace

extern "C" {

CTTensor *ct_packed_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *bias,
                              const int64_t *query_offsets, const int64_t *key_offsets, int rows, bool causal,
                              double scale, double dropout, uint64_t seed) {
    return tensor_or_error([&] {
        Settings settings{{query_offsets, query_offsets + rows + 1},
                          {key_offsets, key_offsets + rows + 1},
                          causal, scale, dropout, seed};
        return PackedAttention::apply(unbox(q).contiguous(), unbox(k).contiguous(), unbox(v).contiguous(),
                                      unbox(bias).defined() ? c10::optional<at::Tensor>(unbox(bias)) : c10::nullopt,
                                      settings);
    });
}

CTTensor *ct_attention(const CTTensor *q, const CTTensor *k, const CTTensor *v, const CTTensor *mask, double scale) {
    return tensor_or_error([&] {
        at::Tensor bias = unbox(mask);
        if (bias.defined() && bias.is_cuda()) {
            // The GPU's kernel reads 16 bytes at a time, also from rows of a part of a mask: a copy whose rows are
            // padded to that.
            int64_t width = bias.size(-1), step = 16 / bias.element_size();
            int64_t padded = (width + step - 1) / step * step;
            at::Tensor copy = at::empty({bias.size(0), bias.size(1), bias.size(2), padded}, bias.options());
            copy.narrow(3, 0, width).copy_(bias);
            bias = copy.narrow(3, 0, width);
        }
        return at::scaled_dot_product_attention(unbox(q), unbox(k), unbox(v), bias.defined()
                                                    ? c10::optional<at::Tensor>(bias) : c10::nullopt,
                                                0, false, scale);
    });
}

}
