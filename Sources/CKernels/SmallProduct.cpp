#include "SmallProduct.hpp"

#include <algorithm>
#include <cstring>

#include "Simd.hpp"

using namespace ckernels;

namespace {

/// One row of a panel. Compilers split it into the widest vectors of each instruction set.
typedef float Panel __attribute__((vector_size(panel * sizeof(float))));

/// A tile of C in registers: `Rows` rows of one panel. Six rows are twelve of the sixteen registers of AVX2.
template <int Rows>
CK_INLINED void tile(const float *a, int64_t a_row, int64_t a_column, const float *b, int64_t b_stride, int64_t depth, float beta,
                     float *c, int64_t c_stride) {
    Panel sums[Rows];
    for (int i = 0; i < Rows; ++i) sums[i] = Panel{};
    // Two pointers to three rows each, so that no address depends on a chain of others.
    const float *later = a + 3 * a_row;
    for (int64_t k = 0; k < depth; ++k, a += a_column, later += a_column, b += b_stride) {
        Panel own;
        std::memcpy(&own, b, sizeof own);
        for (int i = 0; i < Rows; ++i) sums[i] += (i < 3 ? a[i * a_row] : later[(i - 3) * a_row]) * own;
    }
    for (int i = 0; i < Rows; ++i, c += c_stride) {
        if (beta != 0) {
            Panel old;
            std::memcpy(&old, c, sizeof old);
            sums[i] += beta * old;
        }
        std::memcpy(c, &sums[i], sizeof(Panel));
    }
}

CK_CLONES void product(int64_t m, int64_t n, int64_t k, const Factor &a, const float *b, int64_t b_stride, float beta, float *c,
                       int64_t c_stride, Triangle triangle) {
    for (int64_t column = 0; column < n; column += panel) {
        int64_t rows = 0;
        for (int64_t row = triangle == Triangle::lower_result ? column : 0; row < m; row += rows) {
            const int64_t rest = m - row;
            // Tiles of six, and no small ones at the end.
            rows = rest == 6 || rest > 8 ? 6 : rest > 6 ? 4 : rest;
            const int64_t from = triangle == Triangle::upper ? std::min(row, k) : 0;
            const int64_t depth = (triangle == Triangle::lower ? std::min(k, row + rows) : k) - from;
            const float *first = a.data + row * a.row + from * a.column, *second = b + from * b_stride + column;
            float *result = c + row * c_stride + column;
            switch (rows) {
                case 1: tile<1>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
                case 2: tile<2>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
                case 3: tile<3>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
                case 4: tile<4>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
                case 5: tile<5>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
                default: tile<6>(first, a.row, a.column, second, b_stride, depth, beta, result, c_stride); break;
            }
        }
    }
}

}  // namespace

namespace ckernels {

void small_product(int64_t m, int64_t n, int64_t k, const Factor &a, const float *b, int64_t b_stride, float beta, float *c,
                   int64_t c_stride, Triangle triangle) {
    product(m, n, k, a, b, b_stride, beta, c, c_stride, triangle);
}

}  // namespace ckernels
