// Fused projections of the few rows of a decode step, with biases and LoRA branches: the threads synchronize once for
// all of them, and each adds the LoRA delta to the outputs that it has just written.
#include "FewRowProjections.hpp"

#include <ATen/ops/empty.h>


#include <atomic>
#include <deque>
#include <optional>
#include <thread>
#include <vector>

#include "Bridge.hpp"
#include "FewRows.hpp"
#include "Parallel.hpp"
#include "Precision.hpp"
#include "Quantized.hpp"

using namespace ctorch;

namespace {

const float *floats(const at::Tensor &x) { return static_cast<const float *>(x.const_data_ptr()); }

bool is_plain(const at::Tensor &x) { return x.is_cpu() && x.scalar_type() == at::kFloat && x.is_contiguous(); }

/// A projection and its output.
struct Part {
    const CTProjection &given;
    std::optional<StoredMatrix> stored;
    std::optional<StoredProduct> product;
    at::Tensor y;
    int64_t outputs = 0;
    /// scale · x aᵀ [rows, rank].
    std::vector<float> low;

    // The GEMV kernel refers to the matrix.
    Part(const Part &) = delete;
    explicit Part(const CTProjection &given) : given(given) {
        if (given.weight) {
            outputs = unbox(given.weight).size(0);
        } else {
            stored = stored_matrix(&given.stored);
            outputs = stored->outputs;
        }
    }

    int64_t rank() const { return given.a ? unbox(given.a).size(0) : 0; }

    /// Computes x aᵀ for rows first ..< end of a, on the calling thread.
    void make_low(const float *x, int64_t rows, int64_t inputs, int64_t first, int64_t end) {
        multiply_few_part(floats(unbox(given.a)), inputs, x, rows, inputs, low.data(), rank(), nullptr, Start::zero, first, end);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t i = first; i < end; ++i) low[static_cast<size_t>(row * rank() + i)] *= static_cast<float>(given.scale);
        }
    }

    /// Outputs first ..< end without the LoRA delta, on the calling thread.
    void make(const float *x, int64_t rows, int64_t inputs, int64_t first, int64_t end) const {
        auto *out = static_cast<float *>(y.mutable_data_ptr());
        const float *bias = given.bias ? floats(unbox(given.bias)) : nullptr;
        if (product) {
            product->make(first, end);
            for (int64_t row = 0; bias && row < rows; ++row) {
                for (int64_t i = first; i < end; ++i) out[row * outputs + i] += bias[i];
            }
        } else {
            const at::Tensor &weight = unbox(given.weight);
            multiply_few_part(floats(weight), weight.stride(0), x, rows, inputs, out, outputs, bias,
                              bias ? Start::bias : Start::zero, first, end);
        }
    }

    void add_update(int64_t rows, int64_t first, int64_t end) const {
        multiply_few_part(floats(unbox(given.b)), rank(), low.data(), rows, rank(), static_cast<float *>(y.mutable_data_ptr()),
                          outputs, nullptr, Start::output, first, end);
    }
};

/// Whether the GEMV kernels apply to all of them.
bool are_for_few_rows(const at::Tensor &x, const std::deque<Part> &parts) {
    if (at::GradMode::is_enabled() || !is_plain(x) || x.dim() < 1 || x.size(-1) == 0 || compute_type(x) != at::kFloat) return false;
    const int64_t inputs = x.size(-1), rows = x.numel() / inputs;
    if (rows == 0) return false;
    for (const Part &part : parts) {
        if (part.stored) {
            if (part.stored->inputs != inputs || !part.stored->codes.is_cpu() || rows > few_stored_rows) return false;
            if (part.given.bias && !(is_plain(unbox(part.given.bias)) && unbox(part.given.bias).numel() == part.outputs)) return false;
        } else if (!is_for_few_rows(x, unbox(part.given.weight), unbox(part.given.bias))) {
            return false;
        }
        if (!part.given.a) continue;
        if (part.given.dropout > 0) return false;
        const at::Tensor &a = unbox(part.given.a), &b = unbox(part.given.b);
        if (!is_plain(a) || !is_plain(b) || a.dim() != 2 || b.dim() != 2 || a.size(0) != b.size(1) || a.size(1) != inputs ||
            b.size(0) != part.outputs) {
            return false;
        }
    }
    return true;
}

/// Thread boundaries within the outputs are multiples of this.
constexpr int64_t step = outputs_of_blocks;

/// Computes x aᵀ for the LoRA branches of all projections, dynamically scheduled in chunks of rows of a. Threads do this
/// before their outputs, so `wait` rarely has to wait when they add the deltas.
class LowProducts {
public:
    LowProducts(std::deque<Part> &parts, const float *x, int64_t rows, int64_t inputs)
        : x(x), rows(rows), inputs(inputs) {
        for (Part &part : parts) {
            part.low.resize(static_cast<size_t>(rows * part.rank()));
            for (int64_t first = 0; first < part.rank(); first += step) {
                pieces.push_back({&part, first, std::min(first + step, part.rank())});
            }
        }
    }

    void make_some() {
        for (size_t i = next++; i < pieces.size(); i = next++) {
            pieces[i].part->make_low(x, rows, inputs, pieces[i].first, pieces[i].end);
            done.fetch_add(1, std::memory_order_release);
        }
    }

    void wait() const {
        while (done.load(std::memory_order_acquire) < pieces.size()) std::this_thread::yield();
    }

private:
    static constexpr int64_t step = 4;
    struct Piece {
        Part *part;
        int64_t first, end;
    };
    const float *x;
    int64_t rows, inputs;
    std::vector<Piece> pieces;
    std::atomic<size_t> next{0}, done{0};
};

void make_few(const at::Tensor &x, std::deque<Part> &parts) {
    const int64_t inputs = x.size(-1), rows = x.numel() / inputs;
    auto shape = x.sizes().vec();
    std::vector<int64_t> ends;
    int64_t steps = 0;
    for (Part &part : parts) {
        shape.back() = part.outputs;
        part.y = at::empty(shape, x.options());
        if (part.stored) {
            part.product.emplace(*part.stored, floats(x), rows, static_cast<float *>(part.y.mutable_data_ptr()));
        }
        steps += (part.outputs + step - 1) / step;
        ends.push_back(steps);
    }
    LowProducts low(parts, floats(x), rows, inputs);
    ctorch::parallel_with_rest(steps, std::max<int64_t>(1, elements_of_a_thread / (step * inputs)), [&](int64_t from, int64_t to) {
        low.make_some();
        int64_t start = 0;
        for (size_t i = 0; i < parts.size(); start = ends[i++]) {
            const int64_t first = std::max(from, start), end = std::min(to, ends[i]);
            if (first >= end) continue;
            const int64_t begin = step * (first - start), stop = std::min(step * (end - start), parts[i].outputs);
            parts[i].make(floats(x), rows, inputs, begin, stop);
            if (!parts[i].given.a) continue;
            low.wait();
            parts[i].add_update(rows, begin, stop);
        }
    });
}

}  // namespace

namespace ctorch {

std::optional<std::vector<at::Tensor>> few_row_projections(const at::Tensor &x, const std::vector<CTProjection> &given) {
    std::deque<Part> parts;
    for (const CTProjection &projection : given) parts.emplace_back(projection);
    if (!are_for_few_rows(x, parts)) return std::nullopt;
    make_few(x, parts);
    std::vector<at::Tensor> results;
    for (const Part &part : parts) results.push_back(part.y);
    return results;
}

}  // namespace ctorch
