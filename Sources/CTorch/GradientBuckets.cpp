// Gradients that are summed over processes while the backward pass runs (Li et al. 2020, "PyTorch Distributed", section
// 3.2): parameters are grouped into buckets, last parameters first, and a bucket is sent when its gradients are complete
// and all buckets before it were sent, so that all ranks send in one order.
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <vector>

#include "Bridge.hpp"
#include "Distributed.hpp"
#include "ctorch_distributed.h"

using namespace ctorch;

namespace {

struct Bucket {
    /// Indices of its parameters, and the start of each one's gradient in `flat`.
    std::vector<size_t> parameters;
    std::vector<int64_t> starts;
    int64_t count = 0;
    /// fp32 on the CPU: the gradients, then for each parameter 1 if it has one.
    at::Tensor flat;
    size_t missing = 0;
    /// Waits for its sum.
    std::function<void()> wait;
};

}  // namespace

struct CTGradientBuckets {
    CTProcessGroup &group;
    std::vector<at::Tensor> parameters;
    std::vector<Bucket> buckets;
    std::vector<size_t> bucket_of;
    /// Buckets before it were sent.
    size_t next = 0;
    bool is_sending = false;

    CTGradientBuckets(CTProcessGroup &group, std::vector<at::Tensor> given, int64_t bucket_bytes)
        : group(group), parameters(std::move(given)), bucket_of(parameters.size()) {
        for (size_t i = parameters.size(); i-- > 0;) {
            const int64_t size = parameters[i].numel();
            if (buckets.empty() || (buckets.back().count + size) * 4 > bucket_bytes) buckets.emplace_back();
            Bucket &bucket = buckets.back();
            bucket_of[i] = buckets.size() - 1;
            bucket.parameters.push_back(i);
            bucket.starts.push_back(bucket.count);
            bucket.count += size;
        }
        if (buckets.empty()) buckets.emplace_back();
        for (Bucket &bucket : buckets) {
            bucket.flat = at::zeros({bucket.count + static_cast<int64_t>(bucket.parameters.size())}, at::dtype(at::kFloat));
        }
        reset();
    }

    void reset() {
        for (Bucket &bucket : buckets) {
            bucket.missing = bucket.parameters.size();
            bucket.wait = nullptr;
        }
        next = 0;
        is_sending = false;
    }

    void completed(size_t parameter) {
        if (!is_sending) return;
        Bucket &bucket = buckets[bucket_of[parameter]];
        if (bucket.missing > 0) --bucket.missing;
        while (next < buckets.size() && buckets[next].missing == 0) send(buckets[next++]);
    }

    void send(Bucket &bucket) {
        at::NoGradGuard guard;
        auto *flags = bucket.flat.mutable_data_ptr<float>() + bucket.count;
        for (size_t i = 0; i < bucket.parameters.size(); ++i) {
            const at::Tensor &parameter = parameters[bucket.parameters[i]];
            at::Tensor target = bucket.flat.narrow(0, bucket.starts[i], parameter.numel());
            const at::Tensor &gradient = parameter.grad();
            flags[i] = gradient.defined() ? 1 : 0;
            if (gradient.defined()) {
                target.copy_(gradient.reshape({-1}));
            } else {
                target.zero_();
            }
        }
        bucket.wait = start_sum(group, bucket.flat);
    }

    void finish(double *scalars, int count) {
        at::NoGradGuard guard;
        is_sending = false;
        while (next < buckets.size()) send(buckets[next++]);
        // A copy: an operation of a canceled group may outlive this call.
        at::Tensor sums = at::from_blob(scalars, {count}, at::dtype(at::kDouble)).clone();
        auto wait_for_sums = count > 0 ? start_sum(group, sums) : [] {};
        for (Bucket &bucket : buckets) {
            bucket.wait();
            const auto *flags = bucket.flat.const_data_ptr<float>() + bucket.count;
            for (size_t i = 0; i < bucket.parameters.size(); ++i) {
                at::Tensor &parameter = parameters[bucket.parameters[i]];
                if (flags[i] == 0) continue;
                at::Tensor sum = bucket.flat.narrow(0, bucket.starts[i], parameter.numel()).view(parameter.sizes());
                at::Tensor &gradient = parameter.mutable_grad();
                if (gradient.defined()) {
                    gradient.copy_(sum);
                } else {
                    gradient = sum.to(parameter.device(), parameter.scalar_type(), false, true);
                }
            }
        }
        wait_for_sums();
        std::copy_n(sums.const_data_ptr<double>(), count, scalars);
        reset();
    }
};

namespace {

/// Tells the buckets that autograd has accumulated a parameter's gradient.
struct Hook final : torch::autograd::PostAccumulateGradHook {
    CTGradientBuckets &buckets;
    size_t parameter;

    Hook(CTGradientBuckets &buckets, size_t parameter) : buckets(buckets), parameter(parameter) {}
    void operator()(const torch::autograd::Variable &) override { buckets.completed(parameter); }
};

void set_hook(const at::Tensor &parameter, std::unique_ptr<torch::autograd::PostAccumulateGradHook> hook) {
    torch::autograd::impl::set_post_acc_grad_hooks(parameter, std::move(hook));
}

}  // namespace

extern "C" {

CTGradientBuckets *ct_gradients_make(CTProcessGroup *group, CTTensor *const *parameters, int count, int64_t bucket_bytes) {
    CTGradientBuckets *result = nullptr;
    status_or_error([&] {
        std::vector<at::Tensor> values;
        for (int i = 0; i < count; ++i) values.push_back(unbox(parameters[i]));
        auto buckets = std::make_unique<CTGradientBuckets>(*group, std::move(values), bucket_bytes);
        for (size_t i = 0; i < buckets->parameters.size(); ++i) {
            set_hook(buckets->parameters[i], std::make_unique<Hook>(*buckets, i));
        }
        result = buckets.release();
    });
    return result;
}

void ct_gradients_begin(CTGradientBuckets *buckets) { buckets->is_sending = true; }

int ct_gradients_finish(CTGradientBuckets *buckets, double *scalars, int scalar_count) {
    return status_or_error([&] { buckets->finish(scalars, scalar_count); });
}

void ct_gradients_release(CTGradientBuckets *buckets) {
    if (buckets == nullptr) return;
    for (const at::Tensor &parameter : buckets->parameters) set_hook(parameter, nullptr);
    delete buckets;
}
}
