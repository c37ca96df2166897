// Processes that train together, with libtorch's own c10d: a key-value store over TCP and Gloo's collectives.
#define USE_C10D_GLOO
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include <c10/util/Logging.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <mutex>

#include "Bridge.hpp"
#include "Distributed.hpp"
#include "ctorch_distributed.h"

using namespace ctorch;
using std::chrono::milliseconds;

namespace {
/// How often a waiting thread looks whether its group was canceled.
constexpr milliseconds attention{100};
/// An operation waits as long as its peers are alive, which the caller watches: evaluations take hours.
constexpr milliseconds no_limit{std::chrono::hours(24 * 30)};
}  // namespace

struct CTStore {
    c10::intrusive_ptr<c10d::Store> value;
};

struct CTProcessGroup {
    c10::intrusive_ptr<c10d::ProcessGroupGloo> value;
    std::atomic<bool> is_canceled{false};
    std::atomic<bool> has_failed{false};
    std::mutex mutex;
    std::string message;

    void wait(c10d::Work &work) {
        while (true) {
            if (is_canceled) {
                has_failed = true;
                std::lock_guard<std::mutex> lock(mutex);
                throw std::runtime_error(message);
            }
            try {
                work.wait(attention);
                return;
            } catch (const std::exception &) {
                if (!work.isCompleted()) continue;
                if (!work.exception()) return;
                has_failed = true;
                throw;
            }
        }
    }

    c10::intrusive_ptr<c10d::Work> gather(const at::Tensor &own, const at::Tensor &whole) {
        c10d::AllgatherOptions options;
        options.timeout = no_limit;
        std::vector<std::vector<at::Tensor>> outputs{whole.chunk(value->getSize())};
        std::vector<at::Tensor> inputs{own};
        return value->allgather(outputs, inputs, options);
    }

    c10::intrusive_ptr<c10d::Work> sum(at::Tensor tensor) {
        c10d::AllreduceOptions options;
        options.timeout = no_limit;
        std::vector<at::Tensor> tensors{std::move(tensor)};
        return value->allreduce(tensors, options);
    }
};

namespace ctorch {

std::function<void()> start_sum(CTProcessGroup &group, const at::Tensor &tensor) {
    return [&group, work = group.sum(tensor)] { group.wait(*work); };
}

std::function<void()> start_gather(CTProcessGroup &group, const at::Tensor &own, const at::Tensor &whole) {
    return [&group, work = group.gather(own, whole)] { group.wait(*work); };
}

int rank_in(const CTProcessGroup &group) { return group.value->getRank(); }

int size_of(const CTProcessGroup &group) { return group.value->getSize(); }

}  // namespace ctorch

extern "C" {

CTStore *ct_store_connect(const char *host, int port, bool is_host, int listening_socket, const char *prefix,
                          int64_t timeout_ms) {
    CTStore *result = nullptr;
    // Errors are returned; c10d would also write them, with stack traces.
    if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
    status_or_error([&] {
        c10d::TCPStoreOptions options;
        options.port = static_cast<std::uint16_t>(port);
        options.isServer = is_host;
        options.waitWorkers = false;
        options.timeout = milliseconds(timeout_ms);
        if (listening_socket >= 0) options.masterListenFd = listening_socket;
        auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
        result = new CTStore{c10::make_intrusive<c10d::PrefixStore>(prefix, std::move(store))};
    });
    return result;
}

CTStore *ct_store_clone(const CTStore *store) {
    CTStore *result = nullptr;
    status_or_error([&] { result = new CTStore{store->value->clone()}; });
    return result;
}

CTStore *ct_store_prefixed(const CTStore *store, const char *prefix) {
    CTStore *result = nullptr;
    status_or_error([&] { result = new CTStore{c10::make_intrusive<c10d::PrefixStore>(prefix, store->value)}; });
    return result;
}

void ct_store_release(CTStore *store) { delete store; }

int ct_store_set(CTStore *store, const char *key, const void *bytes, size_t count) {
    return status_or_error([&] {
        const auto *start = static_cast<const uint8_t *>(bytes);
        store->value->set(key, std::vector<uint8_t>(start, start + count));
    });
}

int ct_store_set_once(CTStore *store, const char *key, const char *text) {
    return status_or_error(
        [&] { store->value->compareSet(key, std::vector<uint8_t>(), std::vector<uint8_t>(text, text + std::strlen(text))); });
}

int ct_store_add(CTStore *store, const char *key, int64_t value, int64_t *sum) {
    return status_or_error([&] {
        const int64_t result = store->value->add(key, value);
        if (sum != nullptr) *sum = result;
    });
}

int ct_store_check(CTStore *store, const char *key, bool *exists) {
    return status_or_error([&] { *exists = store->value->check({key}); });
}

int ct_store_get(CTStore *store, const char *key, int64_t timeout_ms, void **bytes, size_t *count) {
    return status_or_error([&] {
        store->value->wait({key}, milliseconds(timeout_ms));
        const std::vector<uint8_t> value = store->value->get(key);
        *bytes = std::malloc(value.size() + 1);
        TORCH_CHECK(*bytes != nullptr, "not enough memory");
        if (!value.empty()) std::memcpy(*bytes, value.data(), value.size());
        *count = value.size();
    });
}

CTProcessGroup *ct_group_join(CTStore *store, int rank, int size, const char *address, const char *interface,
                              int64_t timeout_ms) {
    CTProcessGroup *result = nullptr;
    status_or_error([&] {
        auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(timeout_ms));
        options->devices.push_back(address != nullptr ? c10d::ProcessGroupGloo::createDeviceForHostname(address)
                                                      : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
        // One thread, so that operations run one after the other, in the order in which they were started.
        options->threads = 1;
        auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(store->value, rank, size, std::move(options));
        result = new CTProcessGroup;
        result->value = std::move(group);
    });
    return result;
}

void ct_group_cancel(CTProcessGroup *group, const char *message) {
    std::lock_guard<std::mutex> lock(group->mutex);
    if (group->is_canceled) return;
    group->message = message;
    group->is_canceled = true;
}

bool ct_group_has_failed(const CTProcessGroup *group) { return group->has_failed; }

int ct_group_sum(CTProcessGroup *group, CTTensor *tensor) {
    return status_or_error([&] { group->wait(*group->sum(unbox(tensor))); });
}

int ct_group_broadcast(CTProcessGroup *group, CTTensor *tensor, int root) {
    return status_or_error([&] {
        c10d::BroadcastOptions options;
        options.rootRank = root;
        options.timeout = no_limit;
        std::vector<at::Tensor> tensors{unbox(tensor)};
        group->wait(*group->value->broadcast(tensors, options));
    });
}

void ct_group_release(CTProcessGroup *group) {
    if (group != nullptr && group->is_canceled) return;
    delete group;
}
}
