// Recurrences along packed sequences as one autograd node: the gated delta rule and Mamba-2's state space. It saves its inputs
// and, for the delta rule, what each token changes; memories and matrices of chunks are recomputed.
#include "ckernels/Recurrence.hpp"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <memory>
#include <utility>

#include "AutogradNode.hpp"
#include "Bridge.hpp"
#include "Elements.hpp"

using namespace ctorch;

namespace {

using Settings = ckernels::Recurrence;

/// Pointers to the memory of each sequence in tensors of consecutive ones.
std::vector<const float *> memories_of(at::TensorList parts, const Settings &settings) {
    std::vector<const float *> rows;
    for (const at::Tensor &part : parts) {
        for (int64_t row = 0; row < part.size(0); ++row) rows.push_back(floats(part) + row * settings.memory_size());
    }
    return rows;
}

std::vector<float *> mutable_memories_of(at::TensorList parts, const Settings &settings) {
    std::vector<float *> rows;
    for (const at::Tensor &part : parts) {
        for (int64_t row = 0; row < part.size(0); ++row) rows.push_back(mutable_floats(part) + row * settings.memory_size());
    }
    return rows;
}

class Recurrence : public AutogradNode {
public:
    Recurrence(Settings settings, CTMemories kept) : settings(std::move(settings)), kept(kept) {}

    /// Of x, rates, decays and skip, which may be undefined, and memories in tensors of consecutive sequences, if they have any.
    /// Returns the outputs and the memories that are kept.
    Tensors forward(NodeContext *context, const Tensors &inputs) override {
        const at::Tensor &x = inputs[0];
        const std::vector<int64_t> shape = {x.size(0), settings.heads, settings.value_size};
        Tensors results = {at::empty(shape, x.options())};
        at::Tensor changes;
        if (context && settings.kind == Settings::Kind::gated_delta) changes = at::empty(shape, x.options());
        const auto rows = static_cast<int64_t>(settings.rows());
        if (kept == CT_MEMORIES_TOGETHER) results.push_back(at::empty(memory_shape(rows), x.options()));
        for (int64_t row = 0; kept == CT_MEMORIES_APART && row < rows; ++row) {
            results.push_back(at::empty(memory_shape(1), x.options()));
        }
        if (!x.is_meta()) {
            ckernels::recurrence(settings, read(inputs, 4), mutable_floats(results[0]),
                                 changes.defined() ? mutable_floats(changes) : nullptr,
                                 mutable_memories_of(at::TensorList(results).slice(1), settings));
        }
        if (context) {
            Tensors saved = inputs;
            saved.insert(saved.begin() + 4, changes);
            context->save(std::move(saved));
        }
        return results;
    }

    Tensors backward(NodeContext &context, const Tensors &gradients) override {
        const Tensors saved = context.saved();
        Tensors to = {at::empty_like(saved[0]), at::empty_like(saved[1]), at::empty_like(saved[2]),
                      context.needs_gradient(3) ? at::empty_like(saved[3]) : at::Tensor()};
        bool needs_memories = false;
        for (size_t i = 5; i < saved.size(); ++i) needs_memories = needs_memories || context.needs_gradient(i - 1);
        for (size_t i = 5; needs_memories && i < saved.size(); ++i) to.push_back(at::empty_like(saved[i]));
        Tensors given;
        for (const at::Tensor &gradient : gradients) given.push_back(gradient.contiguous());
        if (!saved[0].is_meta()) {
            ckernels::recurrence_backward(settings, read(saved, 5), saved[4].defined() ? floats(saved[4]) : nullptr,
                                          floats(given[0]), memories_of(at::TensorList(given).slice(1), settings),
                                          {mutable_floats(to[0]), mutable_floats(to[1]), mutable_floats(to[2]),
                                           mutable_memories_of(at::TensorList(to).slice(4), settings),
                                           to[3].defined() ? mutable_floats(to[3]) : nullptr});
        }
        return to;
    }

private:
    Settings settings;
    CTMemories kept;

    std::vector<int64_t> memory_shape(int64_t rows) const {
        if (settings.kind == Settings::Kind::gated_delta) return {rows, settings.heads, settings.key_size, settings.value_size};
        return {rows, settings.key_heads, settings.key_size, settings.heads_of_a_key(), settings.value_size};
    }

    /// - Parameter first: the first tensor of memories.
    ckernels::RecurrenceInputs read(const Tensors &tensors, size_t first) const {
        std::vector<const float *> memories = memories_of(at::TensorList(tensors).slice(first), settings);
        memories.resize(settings.rows());
        return {floats(tensors[0]), floats(tensors[1]), floats(tensors[2]), std::move(memories),
                tensors[3].defined() ? floats(tensors[3]) : nullptr};
    }
};

Settings settings_of(const CTRecurrence &given, const int64_t *offsets, int rows) {
    return {given.kind == CT_GATED_DELTA ? Settings::Kind::gated_delta : Settings::Kind::state_space,
            {offsets, offsets + rows + 1},
            given.key_heads,
            given.heads,
            given.key_size,
            given.value_size,
            given.width,
            given.queries,
            given.keys,
            given.values};
}

}  // namespace

extern "C" int ct_recurrence(const CTTensor *x, const CTTensor *rates, const CTTensor *decays, const CTTensor *skip,
                             const CTTensor *const *memories, int parts, const CTRecurrence *given, const int64_t *offsets,
                             int rows, CTMemories kept, CTTensor **results) {
    return status_or_error([&] {
        const Settings settings = settings_of(*given, offsets, rows);
        Tensors inputs = {unbox(x), unbox(rates), unbox(decays), unbox(skip)};
        int64_t remembered = 0;
        for (int i = 0; i < parts; ++i) {
            const at::Tensor &memory = unbox(memories[i]);
            TORCH_CHECK(memory.dim() > 1 && memory.numel() == memory.size(0) * settings.memory_size(),
                        "shape mismatch: memories of ", memory.sizes());
            remembered += memory.size(0);
            inputs.push_back(memory);
        }
        for (at::Tensor &input : inputs) {
            if (!input.defined()) continue;
            input = input.contiguous();
            TORCH_CHECK(is_row_major(input) && input.scalar_type() == at::kFloat, "a recurrence of ", input.scalar_type(), " on ",
                        input.device());
        }
        const int64_t tokens = settings.offsets.back(), gates = tokens * settings.heads;
        TORCH_CHECK(settings.key_heads > 0 && settings.heads % settings.key_heads == 0 && inputs[0].dim() == 2 &&
                        inputs[0].size(0) == tokens && inputs[0].size(1) == settings.width && inputs[1].numel() == gates &&
                        inputs[2].numel() == gates && (!inputs[3].defined() || inputs[3].numel() == settings.heads) &&
                        (parts == 0 || remembered == rows),
                    "shape mismatch: a recurrence over ", inputs[0].sizes(), " with rates ", inputs[1].sizes(), " and ",
                    remembered, " memories");
        Recurrence node(settings, kept);
        const Tensors outputs = at::GradMode::is_enabled() ? recorded(std::make_shared<Recurrence>(std::move(node)), inputs)
                                                           : node.forward(nullptr, inputs);
        for (size_t i = 0; i < outputs.size(); ++i) results[i] = box(outputs[i]);
    });
}
