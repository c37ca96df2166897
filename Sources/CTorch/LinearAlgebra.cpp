// Decompositions and solvers for initializations and orthogonal methods, and the LSTM of P-tuning.
#include <ATen/ops/eye.h>
#include <ATen/ops/fft_ifft2.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/linalg_qr.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/linalg_solve_triangular.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/lstm.h>
#include <ATen/ops/real.h>
#include <ATen/ops/zeros.h>

#include "Bridge.hpp"

using namespace ctorch;

extern "C" {

int ct_svd(const CTTensor *x, CTTensor **u, CTTensor **s, CTTensor **vh) {
    return status_or_error([&] {
        auto result = at::linalg_svd(unbox(x), false);
        *u = box(std::get<0>(result));
        *s = box(std::get<1>(result));
        *vh = box(std::get<2>(result));
    });
}

int ct_qr(const CTTensor *x, CTTensor **q, CTTensor **r) {
    return status_or_error([&] {
        auto result = at::linalg_qr(unbox(x), "reduced");
        *q = box(std::get<0>(result));
        *r = box(std::get<1>(result));
    });
}

CTTensor *ct_solve(const CTTensor *a, const CTTensor *b) {
    return tensor_or_error([&] { return at::linalg_solve(unbox(a), unbox(b)); });
}

CTTensor *ct_solve_unit_lower(const CTTensor *a, const CTTensor *b) {
    return tensor_or_error(
        [&] { return at::linalg_solve_triangular(unbox(a), unbox(b), /*upper=*/false, /*left=*/true, /*unitriangular=*/true); });
}

CTTensor *ct_eye(int64_t size, CTDType type, CTDevice kind, int device_index) {
    return tensor_or_error(
        [&] { return at::eye(size, at::TensorOptions().dtype(scalar_type(type)).device(device(kind, device_index))); });
}

CTTensor *ct_kron(const CTTensor *a, const CTTensor *b) {
    return tensor_or_error([&] { return at::kron(unbox(a), unbox(b)); });
}

CTTensor *ct_inverse_fourier_real(const CTTensor *x) {
    return tensor_or_error([&]() -> at::Tensor {
        // The meta device has no transform; the result has the shape of its input.
        if (unbox(x).is_meta()) return unbox(x).clone();
        return at::real(at::fft_ifft2(unbox(x)));
    });
}

CTTensor *ct_lstm(const CTTensor *x, CTTensor *const *weights, int count, int64_t hidden, int layers, bool bidirectional) {
    return tensor_or_error([&]() -> at::Tensor {
        std::vector<at::Tensor> list;
        list.reserve(static_cast<size_t>(count));
        for (int i = 0; i < count; ++i) list.push_back(unbox(weights[i]));
        const at::Tensor &input = unbox(x);
        at::Tensor start = at::zeros({layers * (bidirectional ? 2 : 1), input.size(1), hidden}, input.options());
        return std::get<0>(at::lstm(input, {start, start}, list, true, layers, 0, false, bidirectional, false));
    });
}
}
