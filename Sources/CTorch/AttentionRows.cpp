#include "AttentionRows.hpp"

#include "Elements.hpp"
#include "Precision.hpp"
#include "ckernels/AttentionRows.hpp"
#include "ckernels/Blas.hpp"

namespace {

// The kernels read and write through the same structures.

ckernels::PackedHeads packed(const at::Tensor &x) {
    return {const_cast<void *>(x.const_data_ptr()), x.scalar_type() == at::kBFloat16, x.size(1), x.size(2)};
}

ckernels::AttentionBias bias_of(const at::Tensor &x) {
    if (!x.defined()) return {};
    return {const_cast<float *>(ctorch::floats(x)), x.stride(0), x.stride(1)};
}

}  // namespace

namespace ctorch {

bool is_for_attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                           const AttentionSettings &settings) {
    return is_row_major(q) && is_row_major(k) && is_row_major(v) && k.scalar_type() == q.scalar_type() &&
           v.scalar_type() == q.scalar_type() && settings.softcap == 0 && ckernels::has_serial_blas() &&
           (!bias.defined() || ((bias.is_cpu() || bias.is_meta()) && bias.dim() == 3 && bias.stride(2) == 1 &&
                                (bias.scalar_type() == at::kFloat || bias.scalar_type() == at::kBFloat16)));
}

void attention_rows(const at::Tensor &q, const at::Tensor &k, const at::Tensor &v, const at::Tensor &bias,
                    const AttentionSettings &settings, at::Tensor &y) {
    if (q.is_meta()) return;
    const at::Tensor wide_bias = in_type(bias, at::kFloat);
    ckernels::attention_rows(packed(q), packed(k), packed(v), bias_of(wide_bias), settings, packed(y));
}

void attention_rows_backward(const at::Tensor &gradient, const at::Tensor &q, const at::Tensor &k, const at::Tensor &v,
                             const at::Tensor &bias, const AttentionSettings &settings, at::Tensor &to_q, at::Tensor &to_k,
                             at::Tensor &to_v, at::Tensor &to_bias) {
    if (q.is_meta()) return;
    const at::Tensor wide_bias = in_type(bias, at::kFloat), sums = in_type(to_bias, at::kFloat);
    ckernels::attention_rows_backward(packed(gradient), packed(q), packed(k), packed(v), bias_of(wide_bias), settings,
                                      packed(to_q), packed(to_k), packed(to_v), bias_of(sums));
    if (to_bias.defined() && !to_bias.is_same(sums)) to_bias.copy_(sums);
}

}  // namespace ctorch
