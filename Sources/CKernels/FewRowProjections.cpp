#include "ckernels/FewRowProjections.hpp"

#include <algorithm>
#include <atomic>
#include <deque>
#include <numeric>
#include <thread>

#include "ckernels/FewRows.hpp"
#include "ckernels/GroupProduct.hpp"
#include "ckernels/Parallel.hpp"
#include "ckernels/StoredProduct.hpp"

using namespace ckernels;

namespace {

/// A projection in progress.
struct Part {
    const FewRowProjection &given;
    /// Of a quantized matrix.
    std::optional<StoredProduct> stored;
    std::optional<GroupProduct> group;
    /// scale · x aᵀ [rows, rank].
    std::vector<float> low;

    explicit Part(const FewRowProjection &given) : given(given) {}
    Part(const Part &) = delete;

    /// Computes x aᵀ for rows first ..< end of a, on the calling thread.
    void make_low(const float *x, int64_t rows, int64_t inputs, int64_t first, int64_t end) {
        multiply_few_part(given.a, inputs, x, rows, inputs, low.data(), given.rank, nullptr, Start::zero, first, end);
        for (int64_t row = 0; row < rows; ++row) {
            for (int64_t i = first; i < end; ++i) low[static_cast<size_t>(row * given.rank + i)] *= given.scale;
        }
    }

    /// Outputs first ..< end without the LoRA delta, on the calling thread.
    void make(const float *x, int64_t rows, int64_t inputs, int64_t first, int64_t end) const {
        if (stored || group) {
            if (stored) stored->make(first, end);
            else group->make(first, end);
            for (int64_t row = 0; given.bias && row < rows; ++row) {
                for (int64_t i = first; i < end; ++i) given.y[row * given.outputs + i] += given.bias[i];
            }
        } else {
            multiply_few_part(given.weight, given.stride, x, rows, inputs, given.y, given.outputs, given.bias,
                              given.bias ? Start::bias : Start::zero, first, end);
        }
    }

    void add_update(int64_t rows, int64_t first, int64_t end) const {
        multiply_few_part(given.b, given.rank, low.data(), rows, given.rank, given.y, given.outputs, nullptr, Start::output,
                          first, end);
    }
};

/// Thread boundaries within the outputs are multiples of this: whole blocks of each kernel, and long enough runs of the rows of
/// group-wise quantized matrices, which lie along the outputs.
constexpr int64_t step = 2 * std::lcm(outputs_of_blocks, GroupProduct::block);

/// Computes x aᵀ for the LoRA branches of all projections, dynamically scheduled in chunks of rows of a. Threads do this
/// before their outputs, so `wait` rarely has to wait when they add the deltas.
class LowProducts {
public:
    LowProducts(std::deque<Part> &parts, const float *x, int64_t rows, int64_t inputs) : x(x), rows(rows), inputs(inputs) {
        for (Part &part : parts) {
            part.low.resize(static_cast<size_t>(rows * part.given.rank));
            for (int64_t first = 0; first < part.given.rank; first += step) {
                pieces.push_back({&part, first, std::min(first + step, part.given.rank)});
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

}  // namespace

namespace ckernels {

void few_row_projections(const float *x, int64_t rows, int64_t inputs, const std::vector<FewRowProjection> &projections) {
    std::deque<Part> parts;
    std::vector<int64_t> ends;
    int64_t steps = 0;
    for (const FewRowProjection &projection : projections) {
        Part &part = parts.emplace_back(projection);
        if (projection.stored) part.stored.emplace(*projection.stored, x, rows, projection.y);
        if (projection.group) part.group.emplace(*projection.group, x, rows, projection.y);
        steps += (projection.outputs + step - 1) / step;
        ends.push_back(steps);
    }
    LowProducts low(parts, x, rows, inputs);
    parallel_with_rest(steps, std::max<int64_t>(1, elements_of_a_thread / (step * inputs)), [&](int64_t from, int64_t to) {
        low.make_some();
        int64_t start = 0;
        for (size_t i = 0; i < parts.size(); start = ends[i++]) {
            const int64_t first = std::max(from, start), end = std::min(to, ends[i]);
            if (first >= end) continue;
            const int64_t begin = step * (first - start), stop = std::min(step * (end - start), parts[i].given.outputs);
            parts[i].make(x, rows, inputs, begin, stop);
            if (!parts[i].given.a) continue;
            low.wait();
            parts[i].add_update(rows, begin, stop);
        }
    });
}

}  // namespace ckernels
