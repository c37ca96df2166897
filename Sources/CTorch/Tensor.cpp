// Creating tensors, their properties and their gradients.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>

#include <cstring>

#include "Bridge.hpp"
#include "MemoryLog.hpp"

using namespace ctorch;

extern "C" {

void ct_release(CTTensor *tensor) { delete tensor; }

CTTensor *ct_undefined(void) { return box(at::Tensor()); }

CTTensor *ct_empty(const int64_t *shape, int rank, CTDType type, CTDevice kind, int index) {
    return tensor_or_error(
        [&] { return at::empty(shape_of(shape, rank), at::dtype(scalar_type(type)).device(device(kind, index))); });
}

CTTensor *ct_full(const int64_t *shape, int rank, double value, CTDType type, CTDevice kind, int index) {
    return tensor_or_error(
        [&] { return at::full(shape_of(shape, rank), value, at::dtype(scalar_type(type)).device(device(kind, index))); });
}

CTTensor *ct_arange(int64_t start, int64_t end, CTDType type, CTDevice kind, int index) {
    return tensor_or_error([&] { return at::arange(start, end, at::dtype(scalar_type(type)).device(device(kind, index))); });
}

CTTensor *ct_from_bytes(const void *bytes, const int64_t *shape, int rank, CTDType type) {
    return tensor_or_error([&] {
        at::Tensor tensor = at::empty(shape_of(shape, rank), at::dtype(scalar_type(type)));
        if (tensor.nbytes() > 0) std::memcpy(tensor.data_ptr(), bytes, tensor.nbytes());
        return tensor;
    });
}

CTTensor *ct_from_memory(void *memory, const int64_t *shape, int rank, CTDType type, void (*release)(void *), void *context) {
    return tensor_or_error([&] {
        return at::from_blob(memory, shape_of(shape, rank), [=](void *) { release(context); }, at::dtype(scalar_type(type)));
    });
}

int ct_rank(const CTTensor *tensor) { return tensor->value.defined() ? static_cast<int>(tensor->value.dim()) : 0; }

int64_t ct_dim(const CTTensor *tensor, int axis) {
    if (!tensor->value.defined()) return 0;
    int64_t rank = tensor->value.dim(), index = axis < 0 ? axis + rank : axis;
    return index >= 0 && index < rank ? tensor->value.size(index) : 0;
}

int64_t ct_count(const CTTensor *tensor) { return tensor->value.defined() ? tensor->value.numel() : 0; }

CTDType ct_dtype(const CTTensor *tensor) {
    return tensor->value.defined() ? static_cast<CTDType>(tensor->value.scalar_type()) : CT_FLOAT32;
}

CTDevice ct_device(const CTTensor *tensor) {
    return tensor->value.defined() ? static_cast<CTDevice>(tensor->value.device().type()) : CT_CPU;
}

int ct_device_index(const CTTensor *tensor) {
    return tensor->value.defined() && tensor->value.device().has_index() ? tensor->value.device().index() : 0;
}

bool ct_is_contiguous(const CTTensor *tensor) { return tensor->value.defined() && tensor->value.is_contiguous(); }

void *ct_data(const CTTensor *tensor) {
    if (!tensor->value.defined() || !tensor->value.has_storage()) return nullptr;
    return tensor->value.data_ptr();
}

double ct_item(const CTTensor *tensor, bool *ok) {
    double result = 0;
    // Meta tensors of a planned step have no values: any result will do.
    if (unbox(tensor).is_meta() && memory_is_logged()) {
        *ok = true;
        return 1;
    }
    *ok = status_or_error([&] { result = unbox(tensor).item().toDouble(); }) == 0;
    return result;
}

CTTensor *ct_contiguous(const CTTensor *tensor) {
    return tensor_or_error([&] { return unbox(tensor).contiguous(); });
}

CTTensor *ct_clone(const CTTensor *tensor) {
    return tensor_or_error([&] { return unbox(tensor).clone(); });
}

CTTensor *ct_to(const CTTensor *tensor, CTDType type, CTDevice kind, int index) {
    return tensor_or_error([&] { return unbox(tensor).to(device(kind, index), scalar_type(type)); });
}

int ct_copy_into(CTTensor *destination, const CTTensor *source) {
    return status_or_error([&] {
        TORCH_CHECK(destination->value.sizes() == unbox(source).sizes(), "copy from shape ", unbox(source).sizes(),
                    " into shape ", destination->value.sizes());
        at::NoGradGuard guard;
        destination->value.copy_(unbox(source));
    });
}

bool ct_same_bits(const CTTensor *a, const CTTensor *b) {
    bool same = false;
    // A failure (no memory for the copies, a tensor without elements on the meta device) counts as "not the same".
    status_or_error([&] {
        const at::Tensor &x = unbox(a), &y = unbox(b);
        if (!x.defined() || !y.defined() || x.scalar_type() != y.scalar_type() || x.sizes() != y.sizes()) return;
        at::Tensor left = x.detach().cpu().contiguous(), right = y.detach().cpu().contiguous();
        same = left.nbytes() == 0 || std::memcmp(left.data_ptr(), right.data_ptr(), left.nbytes()) == 0;
    });
    return same;
}

bool ct_requires_grad(const CTTensor *tensor) { return tensor->value.defined() && tensor->value.requires_grad(); }
int64_t ct_write_count(const CTTensor *tensor) {
    return tensor->value.defined() && !tensor->value.is_inference() ? static_cast<int64_t>(tensor->value._version()) : 0;
}

int ct_set_requires_grad(CTTensor *tensor, bool value) {
    return status_or_error([&] { tensor->value.set_requires_grad(value); });
}

CTTensor *ct_detach(const CTTensor *tensor) {
    return tensor_or_error([&] { return unbox(tensor).detach(); });
}

int ct_backward(const CTTensor *loss) {
    return status_or_error([&] { unbox(loss).backward(); });
}

CTTensor *ct_grad(const CTTensor *tensor) {
    if (!tensor->value.defined()) return nullptr;
    const at::Tensor &grad = tensor->value.grad();
    return grad.defined() ? box(grad) : nullptr;
}

int ct_set_grad(CTTensor *tensor, const CTTensor *grad) {
    return status_or_error([&] { tensor->value.mutable_grad() = unbox(grad); });
}
}
