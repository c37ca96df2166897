// Activation checkpointing (Chen et al. 2016): the tensors that a segment of the forward pass saves for the backward
// pass are dropped, and recomputed by running the segment again when the first of its gradients is computed.
//
// The autograd graph is unchanged; saved-tensor hooks store an index instead of the tensor. So gradients accumulate
// in the same order as without checkpointing, and are bit-identical.
#include "Recomputation.hpp"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>
#include <ATen/ops/empty.h>

#include <array>
#include <memory>
#include <mutex>

#include "Autocast.hpp"
#include "Bridge.hpp"
#include "Precision.hpp"

using namespace ctorch;

namespace {

struct Part;
/// The segment whose saved tensors are dropped, and the one that is being recomputed.
thread_local std::shared_ptr<Part> dropping;
thread_local Part *collecting = nullptr;
thread_local bool keeps_saved = false;

/// Autocast's state in the original forward pass. The backward pass runs outside of it.
struct AutocastStates {
    std::array<AutocastState, 2> devices{AutocastState::current(at::kCPU), AutocastState::current(at::kCUDA)};

    void apply() const {
        for (const AutocastState &device : devices) device.apply();
    }
};

struct AutocastScope {
    AutocastStates before;
    explicit AutocastScope(const AutocastStates &states) {
        states.apply();
        enter_autocast();
    }
    ~AutocastScope() {
        leave_autocast();
        before.apply();
    }
};

template <typename Value> struct Exchanged {
    Value &place, before;
    Exchanged(Value &place, Value value) : place(place), before(std::exchange(place, std::move(value))) {}
    ~Exchanged() { place = std::move(before); }
};

/// A checkpointed segment of one forward pass. It lives as long as an autograd node has a tensor saved in it.
struct Part {
    int (*again)(void *);
    void (*release)(void *);
    void *context;
    AutocastStates autocast;
    /// Number of tensors that its autograd nodes saved.
    size_t count = 0;
    std::vector<at::Tensor> saved;
    size_t collected = 0;

    Part(int (*again)(void *), void (*release)(void *), void *context) : again(again), release(release), context(context) {}
    Part(const Part &) = delete;
    Part &operator=(const Part &) = delete;
    ~Part() { release(context); }

    void collect(const at::Tensor &tensor) {
        // Detached, so that the graph of the recomputation is freed.
        if (collected < count) saved[collected] = tensor.detach();
        ++collected;
    }

    /// Each is handed out once, so that it is freed after its node used it; a second backward pass recomputes again.
    at::Tensor take(size_t index) {
        if (index >= saved.size() || !saved[index].defined()) compute();
        return std::exchange(saved[index], at::Tensor());
    }

    void compute() {
        saved.assign(count, at::Tensor());
        collected = 0;
        c10::AutoGradMode gradients(true);
        AutocastScope types(autocast);
        Exchanged<std::shared_ptr<Part>> none(dropping, nullptr);
        Exchanged<Part *> self(collecting, this);
        TORCH_CHECK(again(context) == 0, last_error());
        TORCH_CHECK(collected == count, "activation checkpointing: the recomputed layer saved ", collected,
                    " tensors, the original forward pass ", count);
    }
};

struct DroppedTensor final : torch::autograd::SavedVariableHooks {
    std::shared_ptr<Part> part;
    size_t index = 0;
    explicit DroppedTensor(std::shared_ptr<Part> part) : part(std::move(part)) {}
    void call_pack_hook(const at::Tensor &) override { index = part->count++; }
    at::Tensor call_unpack_hook() override { return part->take(index); }
};

struct CollectedTensor final : torch::autograd::SavedVariableHooks {
    Part *part;
    explicit CollectedTensor(Part *part) : part(part) {}
    void call_pack_hook(const at::Tensor &tensor) override { part->collect(tensor); }
    at::Tensor call_unpack_hook() override {
        TORCH_CHECK(false, "activation checkpointing: backward was called inside a recomputed layer");
    }
};

/// libtorch asks its engine for the hooks of a saved tensor; the default engine has none.
struct HookedEngine final : torch::autograd::Engine {
    std::unique_ptr<torch::autograd::SavedVariableHooks> get_default_saved_variable_hooks() override {
        if (keeps_saved) return nullptr;
        if (dropping) return std::make_unique<DroppedTensor>(dropping);
        if (collecting != nullptr) return std::make_unique<CollectedTensor>(collecting);
        return nullptr;
    }
};

torch::autograd::Engine &hooked_engine() {
    // Never destroyed: its threads outlive the static destructors at exit.
    static auto *engine = new HookedEngine;
    return *engine;
}

}  // namespace

namespace ctorch {

bool recomputation_is_complete() { return collecting != nullptr && collecting->collected >= collecting->count; }

KeepsSaved::KeepsSaved(bool keeps) : before(std::exchange(keeps_saved, keeps_saved || keeps)) {}
KeepsSaved::~KeepsSaved() { keeps_saved = before; }

at::Tensor unasked_product(const at::Tensor &x, int64_t outputs) {
    auto shape = x.sizes().vec();
    shape.back() = outputs;
    return at::empty(shape, x.options().dtype(compute_type(x)));
}

}  // namespace ctorch

extern "C" {

void ct_recomputed_begin(int (*again)(void *), void (*release)(void *), void *context) {
    static std::once_flag once;
    std::call_once(once, [] { torch::autograd::set_default_engine_stub(hooked_engine); });
    dropping = std::make_shared<Part>(again, release, context);
}

void ct_recomputed_end(void) { dropping = nullptr; }

bool ct_is_recomputed(void) { return dropping != nullptr || collecting != nullptr; }
}
