#include "ckernels/FewRows.hpp"

#include <algorithm>
#include <vector>

#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

namespace {

using ckernels::dot;
using ckernels::Start;
#if defined(__x86_64__)
using ckernels::sum_of;
#endif

/// Signature of all kernels here.
struct Product {
    const float *weight;
    int64_t stride;
    const float *x;
    int64_t inputs;
    float *y;
    int64_t outputs;
    const float *bias;
    Start start;

    float start_at(int64_t row, int64_t output) const {
        return start == Start::bias ? bias[output] : start == Start::output ? y[row * outputs + output] : 0;
    }
};

/// Portable version.
void multiply_plain(const Product &p, int64_t rows, int64_t first, int64_t end) {
    for (int64_t output = first; output < end; ++output) {
        const float *w = p.weight + output * p.stride;
        for (int64_t row = 0; row < rows; ++row) {
            p.y[row * p.outputs + output] = p.start_at(row, output) + dot(w, p.x + row * p.inputs, p.inputs);
        }
    }
}

#if defined(__x86_64__)

/// One row of W times `Rows` rows of x: W is read sequentially, which is fastest for memory.
template <int Rows> CK_AVX2 void multiply_one(const Product &p, int64_t row, int64_t output) {
    constexpr int parts = Rows <= 2 ? 4 : 2;
    const float *w = p.weight + output * p.stride, *x = p.x + row * p.inputs;
    __m256 sums[Rows][parts];
    for (auto &list : sums) {
        for (auto &one : list) one = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 8 * parts <= p.inputs; i += 8 * parts) {
        for (int k = 0; k < parts; ++k) {
            const __m256 value = _mm256_loadu_ps(w + i + 8 * k);
            for (int r = 0; r < Rows; ++r) {
                sums[r][k] = _mm256_fmadd_ps(value, _mm256_loadu_ps(x + r * p.inputs + i + 8 * k), sums[r][k]);
            }
        }
    }
    for (int r = 0; r < Rows; ++r) {
        __m256 all = sums[r][0];
        for (int k = 1; k < parts; ++k) all = _mm256_add_ps(all, sums[r][k]);
        float sum = sum_of(all);
        for (int64_t k = i; k < p.inputs; ++k) sum += w[k] * x[r * p.inputs + k];
        p.y[(row + r) * p.outputs + output] = p.start_at(row + r, output) + sum;
    }
}

/// `Outputs` rows of W times `Rows` rows of x, accumulated in registers. Each of `passes` over the same rows of W
/// prefetches its part of the following rows into the L2 cache: all at once would stall the first pass, and the L1
/// cache is full.
template <int Rows, int Outputs>
CK_AVX2 void multiply_block(const Product &p, int64_t row, int64_t output, int64_t pass, int64_t passes) {
    const float *w = p.weight + output * p.stride, *x = p.x + row * p.inputs;
    const float *next = w + Outputs * p.stride + pass * p.inputs / passes;
    __m256 sums[Rows][Outputs];
    for (auto &list : sums) {
        for (auto &one : list) one = _mm256_setzero_ps();
    }
    const auto add = [&](int64_t i) CK_AVX2 {
        __m256 values[Outputs];
        for (int k = 0; k < Outputs; ++k) values[k] = _mm256_loadu_ps(w + k * p.stride + i);
        for (int r = 0; r < Rows; ++r) {
            const __m256 input = _mm256_loadu_ps(x + r * p.inputs + i);
            for (int k = 0; k < Outputs; ++k) sums[r][k] = _mm256_fmadd_ps(values[k], input, sums[r][k]);
        }
    };
    int64_t i = 0;
    for (; i + 32 <= p.inputs; i += 32) {
        for (int k = 0; k < Outputs; ++k) {
            _mm_prefetch(reinterpret_cast<const char *>(next + k * p.stride + i / passes), _MM_HINT_T1);
        }
        for (int j = 0; j < 32; j += 8) add(i + j);
    }
    for (; i + 8 <= p.inputs; i += 8) add(i);
    for (int r = 0; r < Rows; ++r) {
        for (int k = 0; k < Outputs; ++k) {
            float sum = sum_of(sums[r][k]);
            for (int64_t j = i; j < p.inputs; ++j) sum += w[k * p.stride + j] * x[r * p.inputs + j];
            p.y[(row + r) * p.outputs + output + k] = p.start_at(row + r, output + k) + sum;
        }
    }
}

/// All rows of x, three or four at a time.
template <int Outputs> CK_AVX2 void multiply_block(const Product &p, int64_t rows, int64_t output) {
    const int64_t passes = (rows + 3) / 4;
    for (int64_t pass = 0, row = 0; pass < passes; ++pass) {
        const int64_t count = (rows - row + passes - pass - 1) / (passes - pass);
        switch (count) {
            case 1: multiply_block<1, Outputs>(p, row, output, pass, passes); break;
            case 2: multiply_block<2, Outputs>(p, row, output, pass, passes); break;
            case 3: multiply_block<3, Outputs>(p, row, output, pass, passes); break;
            default: multiply_block<4, Outputs>(p, row, output, pass, passes);
        }
        row += count;
    }
}

/// Four rows of W times `Rows` rows of x, for rows so short that the horizontal sums dominate.
template <int Rows> CK_AVX2 void multiply_four(const Product &p, int64_t row, int64_t output) {
    const float *w[4], *x[Rows];
    for (int k = 0; k < 4; ++k) w[k] = p.weight + (output + k) * p.stride;
    for (int r = 0; r < Rows; ++r) x[r] = p.x + (row + r) * p.inputs;
    __m256 sums[Rows][4];
    for (auto &list : sums) {
        for (auto &one : list) one = _mm256_setzero_ps();
    }
    int64_t i = 0;
    for (; i + 8 <= p.inputs; i += 8) {
        __m256 input[Rows];
        for (int r = 0; r < Rows; ++r) input[r] = _mm256_loadu_ps(x[r] + i);
        for (int k = 0; k < 4; ++k) {
            const __m256 value = _mm256_loadu_ps(w[k] + i);
            for (int r = 0; r < Rows; ++r) sums[r][k] = _mm256_fmadd_ps(value, input[r], sums[r][k]);
        }
    }
    for (int r = 0; r < Rows; ++r) {
        const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(sums[r][0], sums[r][1]), _mm256_hadd_ps(sums[r][2], sums[r][3]));
        __m128 total = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
        for (int64_t j = i; j < p.inputs; ++j) {
            total = _mm_add_ps(total, _mm_mul_ps(_mm_setr_ps(w[0][j], w[1][j], w[2][j], w[3][j]), _mm_set1_ps(x[r][j])));
        }
        float *y = p.y + (row + r) * p.outputs + output;
        if (p.start == Start::bias) total = _mm_add_ps(total, _mm_loadu_ps(p.bias + output));
        if (p.start == Start::output) total = _mm_add_ps(total, _mm_loadu_ps(y));
        _mm_storeu_ps(y, total);
    }
}

CK_AVX2 void multiply_avx2(const Product &p, int64_t rows, int64_t first, int64_t end) {
    int64_t output = first;
    if (p.inputs < 64) {
        for (; output + 4 <= end; output += 4) {
            for (int64_t row = 0; row < rows;) {
                const int64_t left = rows - row, count = left == 1 ? 1 : left == 2 || left == 4 ? 2 : 3;
                if (count == 1) multiply_four<1>(p, row, output);
                if (count == 2) multiply_four<2>(p, row, output);
                if (count == 3) multiply_four<3>(p, row, output);
                row += count;
            }
        }
        return multiply_plain(p, rows, output, end);
    }
    for (; rows <= 4 && output < end; ++output) {
        switch (rows) {
            case 1: multiply_one<1>(p, 0, output); break;
            case 2: multiply_one<2>(p, 0, output); break;
            case 3: multiply_one<3>(p, 0, output); break;
            default: multiply_one<4>(p, 0, output);
        }
    }
    // Twelve accumulators and their operands fit in sixteen registers.
    for (; output + 3 <= end; output += 3) multiply_block<3>(p, rows, output);
    for (; output < end; ++output) multiply_block<1>(p, rows, output);
}

#endif

}  // namespace

namespace ckernels {

void multiply_few_part(const float *weight, int64_t stride, const float *x, int64_t rows, int64_t inputs, float *y,
                       int64_t outputs, const float *bias, Start start, int64_t first, int64_t end) {
    if (rows == 0) return;
    const Product product{weight, stride, x, inputs, y, outputs, bias, start};
#if defined(__x86_64__)
    if (has_avx2()) return multiply_avx2(product, rows, first, end);
#endif
    multiply_plain(product, rows, first, end);
}

void multiply_few(const float *weight, int64_t stride, const float *x, int64_t rows, int64_t inputs, float *y, int64_t outputs,
                  const float *bias) {
    constexpr int64_t step = outputs_of_blocks;
    const int64_t least = std::max<int64_t>(1, elements_of_a_thread / (step * inputs));
    parallel_with_rest((outputs + step - 1) / step, least, [&](int64_t from, int64_t to) {
        multiply_few_part(weight, stride, x, rows, inputs, y, outputs, bias, bias ? Start::bias : Start::zero, step * from,
                          std::min(step * to, outputs));
    });
}

void add_low_rank(float *y, const float *x, int64_t rows, int64_t inputs, int64_t outputs, int64_t rank, const float *a,
                  const float *b, float scale, int64_t first, int64_t end) {
    std::vector<float> low(static_cast<size_t>(rows * rank));
    multiply_few_part(a, inputs, x, rows, inputs, low.data(), rank, nullptr, Start::zero, 0, rank);
    for (float &number : low) number *= scale;
    multiply_few_part(b, rank, low.data(), rows, rank, y, outputs, nullptr, Start::output, first, end);
}

}  // namespace ckernels
