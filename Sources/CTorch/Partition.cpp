// Tensors of which each process keeps a part of the bytes (Rajbhandari et al. 2020, "ZeRO", stage 3): tensors and saved
// tensors of autograd keep their storage, whose memory comes and goes.
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/Storage.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>

#include "Bridge.hpp"
#include "Distributed.hpp"
#include "ctorch_distributed.h"

using namespace ctorch;

namespace {

/// Of memory that libtorch allocates.
constexpr int64_t alignment = 64;

/// Large ones are mappings of their own: they come and go between activations, where they would leave gaps in the heap.
at::Tensor bytes(int64_t count) {
    constexpr int64_t large = 1 << 16;
    if (count < large) return at::empty({count}, at::dtype(at::kByte));
    const auto size = static_cast<size_t>(count);
    void *start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    TORCH_CHECK(start != MAP_FAILED, "can't allocate memory: ", count, " bytes of a layer's weights");
    return at::from_blob(start, {count}, [size](void *data) { munmap(data, size); }, at::dtype(at::kByte));
}

}  // namespace

struct CTPartition {
    CTProcessGroup &group;
    c10::Storage storage;
    int64_t count;
    /// The address of the original bytes modulo the alignment: kernels may round differently at another.
    int64_t phase;
    int64_t piece;
    at::Tensor own;
    /// All bytes, gathered or on their way.
    at::Tensor whole;
    /// Waits for those on their way.
    std::function<void()> arrival;

    CTPartition(CTProcessGroup &group, const at::Tensor &tensor)
        : group(group), storage(tensor.storage()), count(static_cast<int64_t>(storage.nbytes())) {
        TORCH_CHECK(tensor.is_cpu(), "only tensors on the CPU can be partitioned");
        TORCH_CHECK(storage.data() != nullptr, "the tensor has no bytes to partition");
        const auto *start = static_cast<const uint8_t *>(storage.data());
        const int64_t size = size_of(group), rank = rank_in(group);
        phase = static_cast<int64_t>(reinterpret_cast<uintptr_t>(start) % alignment);
        piece = ((count + size - 1) / size + alignment - 1) / alignment * alignment;
        own = bytes(piece).zero_();
        const int64_t first = std::min(rank * piece, count), last = std::min(first + piece, count);
        std::memcpy(own.mutable_data_ptr(), start + first, static_cast<size_t>(last - first));
        drop();
    }

    void begin() {
        if (whole.defined()) return;
        const int64_t all = piece * size_of(group);
        at::Tensor room = bytes(all + alignment);
        const auto base = static_cast<int64_t>(reinterpret_cast<uintptr_t>(room.const_data_ptr()) % alignment);
        whole = room.narrow(0, (phase - base + alignment) % alignment, all);
        arrival = start_gather(group, own, whole);
    }

    void wait() {
        begin();
        if (!arrival) return;
        arrival();
        arrival = nullptr;
        storage.unsafeGetStorageImpl()->clear_data_ptr_access_error_msg_();
        storage.set_data_ptr_noswap(at::DataPtr(whole.mutable_data_ptr(), at::kCPU));
    }

    /// A running operation keeps what it needs.
    void drop() {
        storage.set_data_ptr_noswap(at::DataPtr(nullptr, at::kCPU));
        storage.unsafeGetStorageImpl()->release_data_and_set_meta_custom_data_ptr_error_msg_(
            "weights that processes share with --shard-base are needed outside of their layer; remove --shard-base");
        arrival = nullptr;
        whole = at::Tensor();
    }
};

extern "C" {

CTPartition *ct_partition_make(CTProcessGroup *group, const CTTensor *tensor) {
    CTPartition *result = nullptr;
    status_or_error([&] { result = new CTPartition(*group, unbox(tensor)); });
    return result;
}

int ct_partition_start(CTPartition *partition) {
    return status_or_error([&] { partition->begin(); });
}

int ct_partition_wait(CTPartition *partition) {
    return status_or_error([&] { partition->wait(); });
}

void ct_partition_drop(CTPartition *partition) { partition->drop(); }

int64_t ct_partition_bytes(const CTPartition *partition) { return partition->count; }

int64_t ct_partition_own_bytes(const CTPartition *partition) { return partition->piece; }

void ct_partition_release(CTPartition *partition) {
    if (partition != nullptr) partition->drop();
    delete partition;
}

int ct_on_gradient(CTTensor *tensor, int (*run)(void *), void (*release)(void *), void *context) {
    // Before anything can throw, so that the context is always freed.
    std::shared_ptr<void> kept(context, release);
    return status_or_error([&] {
        unbox(tensor).register_hook([run, kept](const at::Tensor &) {
            if (run(kept.get()) != 0) throw std::runtime_error(last_error());
        });
    });
}
}
