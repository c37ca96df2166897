// Several projections of one input with their LoRA branches (Hu et al. 2021, eq. 3) as one autograd node: the factors
// A are concatenated to one wide matmul, and the gradients w.r.t. the input are accumulated in place.
#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>

#include <memory>
#include <optional>
#include <vector>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Dropout.hpp"
#include "FewRowProjections.hpp"
#include "GroupQuantized.hpp"
#include "MatrixProduct.hpp"
#include "Precision.hpp"
#include "Quantized.hpp"
#include "Recomputation.hpp"

using namespace ctorch;

namespace {

/// Index of a tensor among a node's arguments; −1 if absent.
using Place = int64_t;

/// One projection of a node.
struct Part {
    /// W if it is frozen: the node holds it directly, not as a saved tensor with libtorch's hooks.
    at::Tensor frozen;
    std::optional<StoredMatrix> stored;
    std::optional<GroupMatrix> group;
    Place weight = -1, bias = -1, a = -1, b = -1;
    double scale = 0, dropout = 0;
    uint64_t seed = 0;
    int64_t outputs = 0, rank = 0;
    /// Offset of its rank among all ranks.
    int64_t start = 0;

    bool has_update() const { return a >= 0; }
};

struct Parts {
    std::vector<Part> list;
    int64_t rank = 0;
    bool drops = false;
};

/// yᵢ = x Wᵢᵀ + biasᵢ + sᵢ · dropᵢ(x) Aᵢᵀ Bᵢᵀ with x [tokens, in], Wᵢ [outᵢ, in], Aᵢ [rᵢ, in], Bᵢ [outᵢ, rᵢ].
///
/// Saves x, which all share, if a W or A is trained, and drop(x) Aᵀ, Σ r floats per token.
class SharedProjections : public AutogradNode {
public:
    explicit SharedProjections(std::shared_ptr<Parts> parts) : parts(std::move(parts)) {}

    /// Of x and the tensors that the parts name.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0];
        const at::TensorList tensors = at::TensorList(inputs).slice(1);
        at::Tensor low;
        if (parts->rank > 0) {
            low = at::empty({x.size(0), parts->rank}, x.options());
            if (!parts->drops) set_product(low, x, all_a(*parts, tensors).t());
        }
        // In half precision the scale is part of the matmul, without another rounding.
        is_scaled = low.defined() && low.scalar_type() == at::kFloat;
        Tensors results;
        bool trains_inputs = false, trains_b = false;
        for (const Part &part : parts->list) {
            at::Tensor y = project(part, x, part.weight >= 0 ? tensors[part.weight] : part.frozen,
                                   part.bias >= 0 ? tensors[part.bias] : at::Tensor());
            trains_inputs = trains_inputs || (part.weight >= 0 && tensors[part.weight].requires_grad());
            if (part.has_update()) {
                const at::Tensor &a = tensors[part.a], &b = tensors[part.b];
                at::Tensor part_low = low.narrow(1, part.start, part.rank);
                if (parts->drops) set_product(part_low, input_of(part, x), a.t());
                if (is_scaled) {
                    if (part.scale != 1) part_low.mul_(part.scale);
                    add_product(y, part_low, b.t());
                } else {
                    y.addmm_(part_low, b.t(), 1, part.scale);
                }
                trains_inputs = trains_inputs || a.requires_grad();
                trains_b = trains_b || b.requires_grad();
            }
            results.push_back(y);
        }
        Tensors saved{trains_inputs ? x : at::Tensor(), trains_b ? low : at::Tensor()};
        saved.insert(saved.end(), tensors.begin(), tensors.end());
        if (context) context->save(std::move(saved));
        return results;
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        const at::Tensor &x = saved[0], &low = saved[1];
        const at::TensorList tensors(saved.data() + 2, saved.size() - 2);
        const auto needs = [&](Place place) { return place >= 0 && context.needs_gradient(static_cast<size_t>(1 + place)); };
        Tensors results(1 + tensors.size());
        const auto result = [&](Place place) -> at::Tensor & { return results[static_cast<size_t>(1 + place)]; };
        at::Tensor to_low, to_x;
        bool needs_low = false;
        for (size_t i = 0; i < parts->list.size(); ++i) {
            const Part &part = parts->list[i];
            const at::Tensor gradient = readable(gradients[i]);
            if (context.needs_gradient(0))
                add_to_input(to_x, part, gradient, part.weight >= 0 ? tensors[part.weight] : part.frozen);
            if (needs(part.weight)) result(part.weight) = multiplied(gradient.t(), x);
            if (needs(part.bias)) result(part.bias) = gradient.sum(0);
            if (!part.has_update()) continue;
            if (needs(part.b)) {
                result(part.b) = multiplied(gradient.t(), low.narrow(1, part.start, part.rank));
                if (!is_scaled) result(part.b).mul_(part.scale);
            }
            if (!needs(part.a) && !context.needs_gradient(0)) continue;
            needs_low = true;
            if (!to_low.defined()) to_low = at::empty({gradient.size(0), parts->rank}, gradient.options());
            at::Tensor to_part = to_low.narrow(1, part.start, part.rank);
            set_product(to_part, gradient, tensors[part.b]);
            if (part.scale != 1) to_part.mul_(part.scale);
        }
        if (needs_low) propagate_low(context, *parts, to_low, x, tensors, to_x, result, needs);
        results[0] = to_x;
        return results;
    }

private:
    std::shared_ptr<Parts> parts;
    /// Whether drop(x) Aᵀ was scaled before it was saved.
    bool is_scaled = false;

    static at::Tensor all_a(const Parts &parts, const at::TensorList &tensors) {
        Tensors list;
        for (const Part &part : parts.list) {
            if (part.has_update()) list.push_back(tensors[part.a]);
        }
        return list.size() == 1 ? list[0] : at::cat(list);
    }

    static at::Tensor input_of(const Part &part, const at::Tensor &x) {
        return part.dropout > 0 ? dropped(x, part.dropout, part.seed) : x;
    }

    static at::Tensor project(const Part &part, const at::Tensor &x, const at::Tensor &weight, const at::Tensor &bias) {
        if (part.stored) {
            at::Tensor y = part.stored->product(x);
            return bias.defined() ? y.add_(bias) : y;
        }
        if (part.group) {
            at::Tensor y = product(*part.group, x);
            return bias.defined() ? y.add_(bias) : y;
        }
        if (!are_for_blas(x, weight)) return bias.defined() ? at::addmm(bias, x, weight.t()) : at::mm(x, weight.t());
        at::Tensor start;
        if (bias.defined()) start = bias.expand({x.size(0), part.outputs}).contiguous();
        return blas_product(x, weight.t(), start);
    }

    /// sum += g W.
    static void add_to_input(at::Tensor &sum, const Part &part, const at::Tensor &gradient, const at::Tensor &weight) {
        if (part.stored) {
            at::Tensor to_x = part.stored->transposed_product(gradient);
            sum = sum.defined() ? sum.add_(to_x) : to_x;
        } else if (part.group) {
            at::Tensor to_x = transposed_product(*part.group, gradient);
            sum = sum.defined() ? sum.add_(to_x) : to_x;
        } else if (sum.defined()) {
            add_product(sum, gradient, weight);
        } else {
            sum = multiplied(gradient, weight);
        }
    }

    /// Given the gradient w.r.t. drop(x) Aᵀ, the gradients w.r.t. A and x.
    template <typename Result, typename Needs>
    static void propagate_low(const NodeContext &context, const Parts &parts, const at::Tensor &to_low, const at::Tensor &x,
                              const at::TensorList &tensors, at::Tensor &to_x, Result result, Needs needs) {
        if (!parts.drops) {
            at::Tensor to_all;
            for (const Part &part : parts.list) {
                if (!needs(part.a)) continue;
                if (!to_all.defined()) to_all = multiplied(to_low.t(), x);
                result(part.a) = to_all.narrow(0, part.start, part.rank);
            }
            if (context.needs_gradient(0)) add_product(to_x, to_low, all_a(parts, tensors));
            return;
        }
        for (const Part &part : parts.list) {
            if (!part.has_update()) continue;
            const at::Tensor to_part = to_low.narrow(1, part.start, part.rank);
            if (needs(part.a)) result(part.a) = multiplied(to_part.t(), input_of(part, x));
            if (!context.needs_gradient(0)) continue;
            if (part.dropout > 0) {
                at::Tensor to_dropped = multiplied(to_part, tensors[part.a]);
                drop_in_place(to_dropped, part.dropout, part.seed);
                to_x.add_(to_dropped);
            } else {
                add_product(to_x, to_part, tensors[part.a]);
            }
        }
    }
};

/// One of them, by the functions for single projections.
at::Tensor project_alone(const CTTensor *x, const CTProjection &given) {
    const auto taken = [](CTTensor *result) {
        TORCH_CHECK(result, last_error());
        at::Tensor value = unbox(result);
        delete result;
        return value;
    };
    at::Tensor y = taken(given.weight         ? ct_linear(x, given.weight, given.bias)
                         : given.group.packed ? ct_group_linear(x, &given.group, given.bias)
                                              : ct_stored_linear(x, &given.stored, given.bias));
    if (!given.a) return y;
    const CTTensor boxed{y};
    return taken(ct_lora_branch(&boxed, x, given.a, given.b, given.scale, given.dropout, given.seed));
}

/// One node's arguments, and the tensors that gradients may reach; none if the node doesn't apply.
struct Shared {
    std::shared_ptr<Parts> parts = std::make_shared<Parts>();
    Tensors tensors;

    Place add(const at::Tensor &tensor) {
        tensors.push_back(tensor);
        return static_cast<Place>(tensors.size()) - 1;
    }

    static void check_inputs(const at::Tensor &x, int64_t inputs) {
        TORCH_CHECK(x.dim() > 0 && x.size(-1) == inputs, "an input of shape ", x.sizes(), " for a matrix with ", inputs,
                    " inputs");
    }

    /// - Parameter type: the compute type.
    static std::optional<Shared> of(const at::Tensor &x, const std::vector<CTProjection> &given, at::ScalarType type) {
        Shared shared;
        bool has_update = false;
        for (const CTProjection &one : given) has_update = has_update || one.a;
        // A single projection uses its own node, which converts weights of other types.
        if (given.size() < 2 && !has_update) return std::nullopt;
        for (const CTProjection &one : given) {
            Part part;
            if (one.weight) {
                const at::Tensor &weight = unbox(one.weight);
                if (weight.scalar_type() != type || weight.dim() != 2 || x.dim() < 1 || x.size(-1) != weight.size(1) ||
                    weight.numel() == 0 || !BlasMatrix::fits(weight)) {
                    return std::nullopt;
                }
                part.outputs = weight.size(0);
                if (weight.requires_grad()) part.weight = shared.add(weight);
                else part.frozen = weight;
            } else if (one.group.packed) {
                // Half precision is computed in fp32 there.
                if (type != at::kFloat && type != at::kDouble) return std::nullopt;
                part.group = group_matrix(&one.group);
                check_inputs(x, part.group->inputs());
                part.outputs = part.group->outputs();
            } else {
                part.stored = stored_matrix(&one.stored);
                check_inputs(x, part.stored->inputs);
                part.outputs = part.stored->outputs;
            }
            if (one.bias) part.bias = shared.add(in_type(unbox(one.bias), type));
            if (one.a) {
                const at::Tensor &a = unbox(one.a), &b = unbox(one.b);
                TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(0) == b.size(1) && a.size(1) == x.size(-1) &&
                                b.size(0) == part.outputs,
                            "shape mismatch: LoRA A ", a.sizes(), ", B ", b.sizes(), ", input ", x.sizes(), ", ", part.outputs,
                            " outputs");
                part.rank = a.size(0);
                part.start = shared.parts->rank;
                shared.parts->rank += part.rank;
                shared.parts->drops = shared.parts->drops || one.dropout > 0;
                part.a = shared.add(in_type(a, type));
                part.b = shared.add(in_type(b, type));
                part.scale = one.scale;
                part.dropout = one.dropout;
                part.seed = one.seed;
            }
            shared.parts->list.push_back(std::move(part));
        }
        return shared;
    }
};

std::vector<at::Tensor> projections(const CTTensor *boxed, const std::vector<CTProjection> &given) {
    const at::Tensor &x = unbox(boxed);
    std::vector<at::Tensor> results;
    if (!at::GradMode::is_enabled()) {
        if (auto few = few_row_projections(x, given)) return *few;
    } else if (auto shared = Shared::of(x, given, compute_type(x))) {
        const std::vector<Part> &parts = shared->parts->list;
        if (recomputation_is_complete()) {
            for (const Part &part : parts) results.push_back(unasked_product(x, part.outputs));
            return results;
        }
        const at::Tensor flat = readable(in_type(x.reshape({-1, x.size(-1)}), compute_type(x)));
        WithoutAutocast guard;
        Tensors inputs{flat};
        inputs.insert(inputs.end(), shared->tensors.begin(), shared->tensors.end());
        const Tensors outputs = recorded(std::make_shared<SharedProjections>(shared->parts), inputs);
        auto shape = x.sizes().vec();
        for (size_t i = 0; i < outputs.size(); ++i) {
            shape.back() = parts[i].outputs;
            results.push_back(outputs[i].reshape(shape));
        }
        return results;
    }
    for (const CTProjection &one : given) results.push_back(project_alone(boxed, one));
    return results;
}

}  // namespace

extern "C" int ct_projections(const CTTensor *x, int count, const CTProjection *given, CTTensor **results) {
    return status_or_error([&] {
        const std::vector<at::Tensor> outputs = projections(x, {given, given + count});
        for (size_t i = 0; i < outputs.size(); ++i) results[i] = box(outputs[i]);
    });
}
