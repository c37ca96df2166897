// Measures what a training step would allocate by running it on the meta device, whose tensors have shapes and
// lifetimes but no data: an allocator that only counts. So a memory plan follows the program itself.
#include <ATen/ExpandUtils.h>
#include <c10/core/Allocator.h>
#include <torch/library.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <mutex>

#include "Bridge.hpp"
#include "MemoryLog.hpp"

using namespace ctorch;

namespace {

std::mutex mutex;
bool is_logging = false;
/// Whether this thread's allocations are logged; other threads may train meanwhile. (The meta device's backward pass
/// runs on the calling thread.)
thread_local bool is_recorded = false;
int64_t next_block = 1;
/// Pairs: (block, bytes) at an allocation, (−block, 0) when it is freed, (0, 1) and (0, 0) around logits.
std::vector<int64_t> events;

struct Block {
    int64_t number;
};

void free_block(void *context) {
    auto *block = static_cast<Block *>(context);
    if (block == nullptr) return;
    {
        std::lock_guard<std::mutex> guard(mutex);
        if (is_logging) events.insert(events.end(), {-block->number, 0});
    }
    delete block;
}

/// Replaces the meta device's allocator: returns the same null pointers, and logs their lifetimes.
struct LoggingAllocator final : public at::Allocator {
    at::DataPtr allocate(size_t bytes) override {
        Block *block = nullptr;
        {
            std::lock_guard<std::mutex> guard(mutex);
            if (is_logging && is_recorded && bytes > 0) {
                block = new Block{next_block++};
                events.insert(events.end(), {block->number, static_cast<int64_t>(bytes)});
            }
        }
        return {nullptr, block, &free_block, at::Device(at::kMeta)};
    }
    at::DeleterFnPtr raw_deleter() const override { return nullptr; }
    void copy_data(void *, const void *, size_t) const override {}
};

// Operations whose meta kernels PyTorch has in Python only. They allocate what the CPU's kernels allocate.

at::Tensor embedding_gradient(const at::Tensor &gradient, const at::Tensor &, c10::SymInt entries, c10::SymInt, bool) {
    return at::empty({entries.expect_int(), gradient.size(-1)}, gradient.options());
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> layer_norm(const at::Tensor &x, c10::SymIntArrayRef shape,
                                                          const c10::optional<at::Tensor> &, const c10::optional<at::Tensor> &,
                                                          double) {
    auto sizes = x.sizes().vec();
    for (size_t i = sizes.size() - shape.size(); i < sizes.size(); ++i) sizes[i] = 1;
    return {at::empty_like(x), at::empty(sizes, x.options()), at::empty(sizes, x.options())};
}

std::tuple<at::Tensor, at::Tensor, at::Tensor>
layer_norm_gradient(const at::Tensor &, const at::Tensor &x, c10::SymIntArrayRef, const at::Tensor &, const at::Tensor &,
                    const c10::optional<at::Tensor> &weight, const c10::optional<at::Tensor> &bias, std::array<bool, 3> wanted) {
    return {wanted[0] ? at::empty_like(x) : at::Tensor(), wanted[1] ? at::empty_like(*weight) : at::Tensor(),
            wanted[2] ? at::empty_like(*bias) : at::Tensor()};
}

at::Tensor index_select(const at::Tensor &x, int64_t axis, const at::Tensor &index) {
    auto sizes = x.sizes().vec();
    sizes[static_cast<size_t>(axis < 0 ? axis + x.dim() : axis)] = index.numel();
    return at::empty(sizes, x.options());
}

at::Tensor &abs_out(const at::Tensor &x, at::Tensor &out) { return const_cast<at::Tensor &>(out.resize_(x.sizes())); }

/// The CPU's kernel computes the exponentials of all elements before it sums them.
at::Tensor logsumexp(const at::Tensor &x, at::IntArrayRef axes, bool keep) {
    at::Tensor exponentials = at::empty_like(x);
    return exponentials.sum(axes, keep);
}

at::Tensor same_shape(const at::Tensor &x) { return at::empty_like(x); }

at::Tensor where(const at::Tensor &, const at::Tensor &a, const at::Tensor &b) {
    return at::empty(at::infer_size(a.sizes(), b.sizes()), a.options());
}

at::Tensor one_number(const at::Tensor &x) { return at::empty({}, x.options()); }

at::Tensor dot(const at::Tensor &x, const at::Tensor &) { return at::empty({}, x.options()); }

void note_logits(bool begins) {
    std::lock_guard<std::mutex> guard(mutex);
    if (is_logging && is_recorded) events.insert(events.end(), {0, begins ? 1 : 0});
}

/// Installs the allocator and the kernels, once.
void prepare() {
    static LoggingAllocator allocator;
    static std::unique_ptr<torch::Library> kernels;
    static std::once_flag once;
    std::call_once(once, [] {
        c10::SetAllocator(at::kMeta, &allocator, 1);
        kernels = std::make_unique<torch::Library>(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__,
                                                   static_cast<uint32_t>(__LINE__));
        kernels->impl("index_select", index_select);
        kernels->impl("abs.out", abs_out);
        kernels->impl("logsumexp", logsumexp);
        kernels->impl("relu", same_shape);
        kernels->impl("where.self", where);
        kernels->impl("max", one_number);
        kernels->impl("min", one_number);
        kernels->impl("dot", dot);
        kernels->impl("embedding_dense_backward", embedding_gradient);
        kernels->impl("native_layer_norm", layer_norm);
        kernels->impl("native_layer_norm_backward", layer_norm_gradient);
    });
}

}  // namespace

namespace ctorch {

LogitsScope::LogitsScope() { note_logits(true); }
LogitsScope::~LogitsScope() { note_logits(false); }

bool memory_is_logged() {
    std::lock_guard<std::mutex> guard(mutex);
    return is_logging && is_recorded;
}

}  // namespace ctorch

extern "C" {

int ct_memory_log_begin(void) {
    return status_or_error([] {
        prepare();
        std::lock_guard<std::mutex> guard(mutex);
        TORCH_CHECK(!is_logging, "a memory log is already active");
        events.clear();
        is_logging = is_recorded = true;
    });
}

int64_t ct_memory_log_count(void) {
    std::lock_guard<std::mutex> guard(mutex);
    return static_cast<int64_t>(events.size() / 2);
}

int64_t ct_memory_log_end(int64_t *pairs, int64_t capacity) {
    std::lock_guard<std::mutex> guard(mutex);
    is_logging = is_recorded = false;
    int64_t count = std::min<int64_t>(capacity, static_cast<int64_t>(events.size() / 2));
    std::copy(events.begin(), events.begin() + 2 * count, pairs);
    events.clear();
    return count;
}
}
