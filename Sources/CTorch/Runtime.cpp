// Errors, memory, gradient mode.
#include <ATen/Context.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/GradMode.h>

#include "Autocast.hpp"
#include "Bridge.hpp"

#if defined(__GLIBC__)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <dlfcn.h>
#endif

namespace {
thread_local std::string last_message;

#if defined(__GLIBC__)
/// Allocates 64-byte aligned blocks within plain malloc blocks.
///
/// glibc's posix_memalign requests more from its heap than it returns, so that a freed block can't serve the next
/// request of the same size: training, which frees and allocates the same tensors at every layer, then holds up to 50
/// % more than is live. Plain blocks are reused exactly.
struct AlignedAllocator final : c10::Allocator {
    static constexpr size_t alignment = 64;

    c10::DataPtr allocate(size_t size) override {
        if (size == 0) return {nullptr, nullptr, &release, c10::Device(c10::DeviceType::CPU)};
        void *block = size <= SIZE_MAX - alignment ? std::malloc(size + alignment) : nullptr;
        TORCH_CHECK(block != nullptr, "not enough memory: a tensor needs ", size, " bytes");
        // malloc aligns to 16 bytes, so there is always room for the block's address before the aligned start.
        auto start = (reinterpret_cast<uintptr_t>(block) + alignment) & ~(uintptr_t{alignment} - 1);
        auto data = reinterpret_cast<void *>(start);
        static_cast<void **>(data)[-1] = block;
        return {data, data, &release, c10::Device(c10::DeviceType::CPU)};
    }

    /// oneDNN's kernels (GELU's among them) allocate blocks without a tensor.
    c10::DeleterFnPtr raw_deleter() const override { return &release; }

    static void release(void *data) {
        if (data != nullptr) std::free(static_cast<void **>(data)[-1]);
    }

    void copy_data(void *target, const void *source, size_t size) const override { default_copy_data(target, source, size); }
};
#endif
}  // namespace

namespace ctorch {
void set_last_error(const char *message) { last_message = message; }
const char *last_error() { return last_message.c_str(); }
}  // namespace ctorch

struct CTGradMode {
    explicit CTGradMode(bool enabled) : guard(enabled) {}
    c10::AutoGradMode guard;
};

/// The state before the scope.
struct CTAutocast {
    ctorch::AutocastState state;
};

extern "C" {

const char *ct_last_error(void) { return ctorch::last_error(); }

void ct_set_last_error(const char *message) { ctorch::set_last_error(message); }

bool ct_cuda_available(void) {
    // The program links libtorch's CPU library only, so that it starts fast and runs without CUDA. The CUDA library
    // registers itself when it is loaded; it is in the folder of the linked libraries, if installed.
#if defined(__linux__)
    static bool is_loaded = dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL) != nullptr;
    if (!is_loaded) return false;
#endif
    return at::globalContext().hasCUDA();
}
bool ct_mps_available(void) { return at::globalContext().hasMPS(); }

int ct_device_memory(CTDevice kind, int index, int64_t *now, int64_t *peak) {
    return ctorch::status_or_error([&] {
        auto stats =
            at::getDeviceAllocator(static_cast<at::DeviceType>(kind))->getDeviceStats(static_cast<c10::DeviceIndex>(index));
        const auto &all = stats.allocated_bytes[static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE)];
        *now = all.current;
        *peak = all.peak;
    });
}

void ct_keep_freed_memory(void) {
#if defined(__GLIBC__)
    static AlignedAllocator allocator;
    c10::SetCPUAllocator(&allocator, 1);
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
    // One arena: the autograd thread frees what the training thread allocated, and a second arena would
    // hold its own copy of the high-water mark.
    mallopt(M_ARENA_MAX, 1);
#endif
}

void ct_trim_memory(void) {
#if defined(__GLIBC__)
    malloc_trim(0);
#endif
}

CTGradMode *ct_grad_mode_enter(bool enabled) { return new CTGradMode(enabled); }
void ct_grad_mode_leave(CTGradMode *mode) { delete mode; }
bool ct_grad_mode_is_enabled(void) { return at::GradMode::is_enabled(); }

CTAutocast *ct_autocast_enter(CTDevice device, CTDType type) {
    auto kind = static_cast<at::DeviceType>(device);
    if (kind != at::kCPU && kind != at::kCUDA) return nullptr;
    auto *before = new CTAutocast{ctorch::AutocastState::current(kind)};
    ctorch::AutocastState{kind, true, ctorch::scalar_type(type)}.apply();
    ctorch::enter_autocast();
    return before;
}

CTAutocast *ct_autocast_suspend(CTDevice device) {
    auto kind = static_cast<at::DeviceType>(device);
    if (kind != at::kCPU && kind != at::kCUDA) return nullptr;
    auto *before = new CTAutocast{ctorch::AutocastState::current(kind)};
    ctorch::AutocastState{kind, false, before->state.type}.apply();
    ctorch::enter_autocast();
    return before;
}

void ct_autocast_leave(CTAutocast *before) {
    if (before == nullptr) return;
    ctorch::leave_autocast();
    before->state.apply();
    delete before;
}
}
