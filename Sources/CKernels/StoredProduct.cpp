#include "ckernels/StoredProduct.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <type_traits>
#include <vector>

#include "Simd.hpp"
#include "ckernels/Parallel.hpp"

namespace ckernels {
namespace {

using Format = StoredWeights::Format;

/// Any format and size: some rows of W at a time are dequantized to a buffer.
void multiply_any(const StoredWeights &w, const float *x, int64_t rows, float *y, int64_t first, int64_t end) {
    constexpr int64_t step = 16;
    std::vector<float> buffer(static_cast<size_t>(step * w.inputs));
    for (int64_t row = first; row < end; row += step) {
        const int64_t count = std::min(step, end - row);
        dequantize_rows(w, row, count, buffer.data());
        for (int64_t r = 0; r < rows; ++r) {
            for (int64_t i = 0; i < count; ++i) {
                y[r * w.outputs + row + i] = dot(buffer.data() + i * w.inputs, x + r * w.inputs, w.inputs);
            }
        }
    }
}

#if defined(__x86_64__)

/// The table's floats split into their four bytes, for lookups by byte shuffles.
struct ByteTables {
    std::array<std::array<uint8_t, 16>, 4> parts;

    explicit ByteTables(const float *table) {
        for (size_t i = 0; i < 16; ++i) {
            uint32_t bits;
            std::memcpy(&bits, table + i, sizeof bits);
            for (size_t k = 0; k < 4; ++k) parts[k][i] = static_cast<uint8_t>(bits >> (8 * k));
        }
    }
};

/// Layout of 64 inputs in `ordered`: vector v of eight holds the inputs whose codes are decoded together.
void order_inputs(const float *x, int64_t count, float *ordered) {
    for (int64_t start = 0; start < count; start += 64) {
        for (int64_t v = 0; v < 8; ++v) {
            for (int64_t j = 0; j < 8; ++j) {
                const int64_t byte = (j < 4 ? 0 : 16) + 4 * (v % 4) + j % 4;
                ordered[start + 8 * v + j] = x[start + 2 * byte + v / 4];
            }
        }
    }
}

/// Rows of 4-bit codes in blocks of multiples of 64, with x in the layout of `order_inputs`.
template <int Rows>
CK_AVX2 void multiply_blocks(const StoredWeights &w, const ByteTables &tables, const float *x, float *y, int64_t first,
                             int64_t end) {
    constexpr int sums = Rows == 1 ? 4 : Rows <= 3 ? 2 : 1;
    __m256i parts[4];
    for (int k = 0; k < 4; ++k) {
        parts[k] = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(tables.parts[static_cast<size_t>(k)].data())));
    }
    const __m256i low = _mm256_set1_epi8(15);
    const uint8_t *codes = w.bytes();
    const int64_t per_row = w.inputs / w.block;
    for (int64_t row = first; row < end; ++row) {
        __m256 total[Rows][sums];
        for (auto &list : total) {
            for (auto &one : list) one = _mm256_setzero_ps();
        }
        int64_t i = 0;
        const uint8_t *next = codes + row * w.inputs / 2;
        for (int64_t step = 0; step < w.inputs / 64; ++step, i += 64, next += 32) {
            const __m256 scale = _mm256_set1_ps(w.scale_of_block(row * per_row + (w.block == 64 ? step : i / w.block)));
            const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(next));
            for (int half = 0; half < 2; ++half) {
                const __m256i index = _mm256_and_si256(half == 0 ? _mm256_srli_epi16(packed, 4) : packed, low);
                const __m256i b0 = _mm256_shuffle_epi8(parts[0], index), b1 = _mm256_shuffle_epi8(parts[1], index);
                const __m256i b2 = _mm256_shuffle_epi8(parts[2], index), b3 = _mm256_shuffle_epi8(parts[3], index);
                const __m256i l0 = _mm256_unpacklo_epi8(b0, b1), l1 = _mm256_unpacklo_epi8(b2, b3);
                const __m256i h0 = _mm256_unpackhi_epi8(b0, b1), h1 = _mm256_unpackhi_epi8(b2, b3);
                const __m256i values[4] = {_mm256_unpacklo_epi16(l0, l1), _mm256_unpackhi_epi16(l0, l1),
                                           _mm256_unpacklo_epi16(h0, h1), _mm256_unpackhi_epi16(h0, h1)};
                for (int v = 0; v < 4; ++v) {
                    const __m256 value = _mm256_mul_ps(_mm256_castsi256_ps(values[v]), scale);
                    const float *input = x + i + 32 * half + 8 * v;
                    for (int r = 0; r < Rows; ++r) {
                        total[r][v % sums] = _mm256_fmadd_ps(value, _mm256_loadu_ps(input + r * w.inputs), total[r][v % sums]);
                    }
                }
            }
        }
        for (int r = 0; r < Rows; ++r) {
            __m256 all = total[r][0];
            for (int k = 1; k < sums; ++k) all = _mm256_add_ps(all, total[r][k]);
            y[r * w.outputs + row] = sum_of(all);
        }
    }
}

/// Layout of 32 inputs in `ordered`: those of the bytes' high halves, then those of the low halves.
CK_AVX512 void order_halves(const float *x, int64_t count, float *ordered) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (int64_t start = 0; start < count; start += 32) {
        const __m512 a = _mm512_loadu_ps(x + start), b = _mm512_loadu_ps(x + start + 16);
        _mm512_storeu_ps(ordered + start, _mm512_permutex2var_ps(a, even, b));
        _mm512_storeu_ps(ordered + start + 16, _mm512_permutex2var_ps(a, odd, b));
    }
}

/// Software prefetch distance in bytes of codes, where the arithmetic limits the processor's own lookahead.
constexpr int64_t fetched_ahead = 1024;

/// The same with the table, times a block's scale, in one register; x in the layout of `order_halves`.
template <int Rows>
CK_AVX512 void multiply_blocks_wide(const StoredWeights &w, const float *table, const float *x, float *y, int64_t first,
                                    int64_t end) {
    constexpr int sums = Rows == 1 ? 4 : 2;
    const __m512 numbers = _mm512_loadu_ps(table);
    const uint8_t *codes = w.bytes();
    const int64_t per_row = w.inputs / w.block;
    for (int64_t row = first; row < end; ++row) {
        __m512 total[Rows][sums];
        for (auto &list : total) {
            for (auto &one : list) one = _mm512_setzero_ps();
        }
        const uint8_t *next = codes + row * w.inputs / 2;
        for (int64_t block = 0, i = 0; block < per_row; ++block) {
            const __m512 scaled = _mm512_mul_ps(numbers, _mm512_set1_ps(w.scale_of_block(row * per_row + block)));
            for (const int64_t stop = i + w.block; i < stop; i += 64) {
                _mm_prefetch(reinterpret_cast<const char *>(next) + fetched_ahead, _MM_HINT_T0);
                for (int part = 0; part < 2; ++part, next += 16) {
                    // The lookup reads the lowest four bits of each index.
                    const __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(next)));
                    const __m512 upper = _mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), scaled);
                    const __m512 lower = _mm512_permutexvar_ps(pairs, scaled);
                    for (int r = 0; r < Rows; ++r) {
                        const float *input = x + r * w.inputs + i + 32 * part;
                        __m512 &one = total[r][2 * part % sums], &other = total[r][(2 * part + 1) % sums];
                        one = _mm512_fmadd_ps(upper, _mm512_loadu_ps(input), one);
                        other = _mm512_fmadd_ps(lower, _mm512_loadu_ps(input + 16), other);
                    }
                }
            }
        }
        for (int r = 0; r < Rows; ++r) {
            __m512 all = total[r][0];
            for (int k = 1; k < sums; ++k) all = _mm512_add_ps(all, total[r][k]);
            y[r * w.outputs + row] = _mm512_reduce_add_ps(all);
        }
    }
}

/// Eight or sixteen stored values as floats, without the row's scale.
struct Int8Lane {
    const int8_t *codes;
    CK_AVX2 __m256 operator()(int64_t place) const {
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes + place))));
    }
    CK_AVX512 __m512 wide(int64_t place) const {
        return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + place))));
    }
};

struct BFloatLane {
    const BFloat *codes;
    CK_AVX2 __m256 operator()(int64_t place) const {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + place));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
    }
    CK_AVX512 __m512 wide(int64_t place) const {
        const __m256i sixteen = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(codes + place));
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen), 16));
    }
};

struct HalfLane {
    const Half *codes;
    CK_AVX2 __m256 operator()(int64_t place) const {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + place)));
    }
    CK_AVX512 __m512 wide(int64_t place) const {
        return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(codes + place)));
    }
};

/// Rows of int8 or 16-bit values, in multiples of 32.
template <int Rows, typename Lane>
CK_AVX2 void multiply_lanes(const StoredWeights &w, Lane lane, const float *scales, const float *x, float *y, int64_t first,
                            int64_t end) {
    // Enough accumulators to hide latency, within the available registers.
    constexpr int sums = Rows == 1 ? 4 : Rows <= 4 ? 2 : 1;
    for (int64_t row = first; row < end; ++row) {
        __m256 total[Rows][sums];
        for (auto &list : total) {
            for (auto &one : list) one = _mm256_setzero_ps();
        }
        for (int64_t i = 0; i < w.inputs; i += 32) {
            for (int k = 0; k < 4; ++k) {
                const __m256 value = lane(row * w.inputs + i + 8 * k);
                for (int r = 0; r < Rows; ++r) {
                    __m256 &one = total[r][k % sums];
                    one = _mm256_fmadd_ps(value, _mm256_loadu_ps(x + r * w.inputs + i + 8 * k), one);
                }
            }
        }
        const float scale = scales ? scales[row] / 127.0f : 1.0f;
        for (int r = 0; r < Rows; ++r) {
            __m256 all = total[r][0];
            for (int k = 1; k < sums; ++k) all = _mm256_add_ps(all, total[r][k]);
            y[r * w.outputs + row] = sum_of(all) * scale;
        }
    }
}

/// The same for `Outputs` outputs from `first` that are `step` apart.
template <int Rows, int Outputs, typename Lane>
CK_AVX512 inline void multiply_outputs_wide(const StoredWeights &w, Lane lane, const float *scales, const float *x, float *y,
                                            int64_t first, int64_t step) {
    __m512 total[Rows][Outputs];
    for (auto &list : total) {
        for (auto &one : list) one = _mm512_setzero_ps();
    }
    for (int64_t i = 0; i < w.inputs; i += 16) {
        __m512 values[Outputs];
        for (int o = 0; o < Outputs; ++o) values[o] = lane.wide((first + o * step) * w.inputs + i);
        for (int r = 0; r < Rows; ++r) {
            const __m512 input = _mm512_loadu_ps(x + r * w.inputs + i);
            for (int o = 0; o < Outputs; ++o) total[r][o] = _mm512_fmadd_ps(values[o], input, total[r][o]);
        }
    }
    for (int o = 0; o < Outputs; ++o) {
        const int64_t output = first + o * step;
        const float scale = scales ? scales[output] / 127.0f : 1.0f;
        for (int r = 0; r < Rows; ++r) y[r * w.outputs + output] = _mm512_reduce_add_ps(total[r][o]) * scale;
    }
}

/// Four outputs share each load of x, and up to four rows each load of W. The outputs are a quarter of all apart, so that each of
/// four streams is read in order: neighboring rows of W in turn defeat the processor's lookahead.
template <int Rows, typename Lane>
CK_AVX512 void multiply_lanes_wide(const StoredWeights &w, Lane lane, const float *scales, const float *x, float *y,
                                   int64_t first, int64_t end) {
    constexpr int streams = 4, together = Rows <= 4 ? Rows : 4, rest = Rows - together;
    const int64_t step = (end - first) / streams;
    for (int64_t output = first; output < first + step; ++output) {
        multiply_outputs_wide<together, streams>(w, lane, scales, x, y, output, step);
        if constexpr (rest > 0) {
            multiply_outputs_wide<rest, streams>(w, lane, scales, x + together * w.inputs, y + together * w.outputs, output,
                                                 step);
        }
    }
    for (int64_t output = first + streams * step; output < end; ++output) {
        multiply_outputs_wide<Rows, 1>(w, lane, scales, x, y, output, 0);
    }
}

/// Calls the body with the number of rows as a compile-time constant.
template <typename Body> void with_rows(int64_t rows, Body body) {
    switch (rows) {
        case 1: return body(std::integral_constant<int, 1>());
        case 2: return body(std::integral_constant<int, 2>());
        case 3: return body(std::integral_constant<int, 3>());
        case 4: return body(std::integral_constant<int, 4>());
        case 5: return body(std::integral_constant<int, 5>());
        case 6: return body(std::integral_constant<int, 6>());
        case 7: return body(std::integral_constant<int, 7>());
        default: return body(std::integral_constant<int, 8>());
    }
}

/// Calls the body with how W's values are read, and the scales of its rows.
template <typename Body> void with_lane(const StoredWeights &w, Body body) {
    switch (w.format) {
        case Format::rows: return body(Int8Lane{w.integers()}, w.scales);
        case Format::fp16: return body(HalfLane{w.halves()}, static_cast<const float *>(nullptr));
        default: return body(BFloatLane{w.bfloats()}, static_cast<const float *>(nullptr));
    }
}

#endif

}  // namespace

/// The kernel for W, and x in its layout.
struct StoredProduct::Kernel {
    enum class Kind { any, blocks, wide_blocks, lanes, wide_lanes } kind = Kind::any;
    std::vector<float> ordered;
#if defined(__x86_64__)
    std::optional<ByteTables> tables;
#endif
};

StoredProduct::StoredProduct(const StoredWeights &w, const float *x, int64_t rows, float *y)
    : w(w), x(x), rows(rows), y(y), kernel(std::make_unique<Kernel>()) {
#if defined(__x86_64__)
    using Kind = Kernel::Kind;
    if (!has_avx2() || rows == 0) return;
    if (w.format == Format::blocks) {
        if (w.inputs % 64 != 0 || w.block % 64 != 0 || w.inputs % w.block != 0) return;
        kernel->ordered.resize(static_cast<size_t>(rows * w.inputs));
        if (has_avx512()) {
            order_halves(x, rows * w.inputs, kernel->ordered.data());
            kernel->kind = Kind::wide_blocks;
        } else {
            order_inputs(x, rows * w.inputs, kernel->ordered.data());
            kernel->tables.emplace(w.table);
            kernel->kind = Kind::blocks;
        }
        return;
    }
    const bool has_lane = w.format == Format::rows || w.format == Format::bf16 || w.format == Format::fp16;
    if (w.inputs % 32 == 0 && has_lane) kernel->kind = has_avx512() ? Kind::wide_lanes : Kind::lanes;
#endif
}

StoredProduct::~StoredProduct() = default;

void StoredProduct::make(int64_t first, int64_t end) const {
    if (rows == 0) return;
#if defined(__x86_64__)
    using Kind = Kernel::Kind;
    switch (kernel->kind) {
        case Kind::any: break;
        case Kind::blocks:
            return with_rows(
                rows, [&](auto count) { multiply_blocks<count>(w, *kernel->tables, kernel->ordered.data(), y, first, end); });
        case Kind::wide_blocks:
            return with_rows(rows,
                             [&](auto count) { multiply_blocks_wide<count>(w, w.table, kernel->ordered.data(), y, first, end); });
        case Kind::lanes:
            return with_lane(w, [&](auto lane, const float *scales) {
                with_rows(rows, [&](auto count) { multiply_lanes<count>(w, lane, scales, x, y, first, end); });
            });
        case Kind::wide_lanes:
            return with_lane(w, [&](auto lane, const float *scales) {
                with_rows(rows, [&](auto count) { multiply_lanes_wide<count>(w, lane, scales, x, y, first, end); });
            });
    }
#endif
    multiply_any(w, x, rows, y, first, end);
}

void multiply_stored(const StoredWeights &w, const float *x, int64_t rows, float *y) {
    const StoredProduct product(w, x, rows, y);
    parallel_with_rest(w.outputs, std::max<int64_t>(1, 65536 / w.inputs),
                       [&](int64_t from, int64_t to) { product.make(from, to); });
}

void use_wide_vectors(bool allowed) {
#if defined(__x86_64__)
    avoids_avx512 = !allowed;
#else
    (void)allowed;
#endif
}

}  // namespace ckernels
