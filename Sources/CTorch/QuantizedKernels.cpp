// Reading stored matrices on the CPU. The library is compiled for any x86-64 or arm64; what AVX2 does faster is chosen
// when it runs.
#include "Clones.hpp"
#include "Parallel.hpp"
#include "Quantized.hpp"
#include "include/ctorch.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <array>
#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ctorch {
namespace {

const float *floats(const at::Tensor &tensor) { return static_cast<const float *>(tensor.const_data_ptr()); }
const uint8_t *bytes(const at::Tensor &tensor) { return static_cast<const uint8_t *>(tensor.const_data_ptr()); }

/// The scales of blocks, by address: asking a tensor for it costs more than a block.
struct Scales {
    const float *plain = nullptr;
    const uint8_t *codes = nullptr;
    const float *nested = nullptr, *table = nullptr;
    float offset = 0;

    explicit Scales(const StoredMatrix &w) {
        if (!w.has_blocks()) return;
        if (!w.nested_scales.defined()) {
            plain = floats(w.scales);
            return;
        }
        codes = bytes(w.scales);
        nested = floats(w.nested_scales);
        table = floats(w.nested_table);
        offset = static_cast<float>(w.offset);
    }

    float operator[](int64_t block) const {
// Two roundings, as the reference has them.
#pragma STDC FP_CONTRACT OFF
        return plain ? plain[block] : table[codes[block]] * nested[block / 256] + offset;
    }
};

/// What both halves of each byte mean.
struct PairTable {
    std::array<float, 512> pairs;

    explicit PairTable(const float *table) {
        for (size_t byte = 0; byte < 256; ++byte) {
            pairs[2 * byte] = table[byte >> 4];
            pairs[2 * byte + 1] = table[byte & 15];
        }
    }
};

/// Numbers start..<end of the flat matrix.
void dequantize_blocks(const StoredMatrix &w, const PairTable &table, int64_t start, int64_t end, float *out) {
    const uint8_t *codes = bytes(w.codes);
    const Scales scales(w);
    int64_t i = start;
    while (i < end) {
        const int64_t block = i / w.block, stop = std::min(end, (block + 1) * w.block);
        const float scale = scales[block];
        if (i % 2 == 1) *out++ = table.pairs[2 * codes[i++ / 2] + 1] * scale;
        for (; i + 1 < stop; i += 2, out += 2) {
            const float *pair = &table.pairs[2 * codes[i / 2]];
            out[0] = pair[0] * scale;
            out[1] = pair[1] * scale;
        }
        if (i < stop) *out++ = table.pairs[2 * codes[i++ / 2]] * scale;
    }
}

#if defined(__x86_64__)

CT_AVX2 int64_t widen_by_eight(const uint16_t *halves, int64_t count, float *out) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i *>(halves + i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(eight));
    }
    return i;
}

#endif

void widen(const uint16_t *halves, int64_t count, float *out) {
    int64_t i = 0;
#if defined(__x86_64__)
    if (has_avx2()) i = widen_by_eight(halves, count, out);
#endif
    for (; i < count; ++i) out[i] = static_cast<float>(c10::Half(halves[i], c10::Half::from_bits()));
}

void dequantize_some_rows(const StoredMatrix &w, const PairTable *table, int64_t first, int64_t end, float *out) {
    if (w.has_blocks()) return dequantize_blocks(w, *table, first * w.inputs, end * w.inputs, out);
    if (w.has_rows()) {
        const auto *codes = static_cast<const int8_t *>(w.codes.const_data_ptr());
        for (int64_t row = first; row < end; ++row, out += w.inputs) {
            const float scale = floats(w.scales)[row] / 127.0f;
            for (int64_t i = 0; i < w.inputs; ++i) out[i] = static_cast<float>(codes[row * w.inputs + i]) * scale;
        }
        return;
    }
    const int64_t start = first * w.inputs, count = (end - first) * w.inputs;
    if (w.codes.scalar_type() == at::kHalf) {
        widen(static_cast<const uint16_t *>(w.codes.const_data_ptr()) + start, count, out);
    } else if (w.codes.scalar_type() == at::kBFloat16) {
        const auto *codes = static_cast<const uint16_t *>(w.codes.const_data_ptr()) + start;
        for (int64_t i = 0; i < count; ++i) {
            const uint32_t bits = static_cast<uint32_t>(codes[i]) << 16;
            std::memcpy(out + i, &bits, sizeof bits);
        }
    } else {
        at::Tensor target = at::from_blob(out, {count}, at::kFloat);
        target.copy_(w.codes.reshape({-1}).slice(0, start, start + count));
    }
}

float dot(const float *a, const float *b, int64_t count) {
    // Eight sums, which compilers keep in registers side by side.
    std::array<float, 8> sums{};
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        for (int64_t k = 0; k < 8; ++k) sums[static_cast<size_t>(k)] += a[i + k] * b[i + k];
    }
    float sum = 0;
    for (; i < count; ++i) sum += a[i] * b[i];
    for (float part : sums) sum += part;
    return sum;
}

/// Any form, any size: each row of W through a buffer in the first cache.
void multiply_any(const StoredMatrix &w, const PairTable *table, const float *x, int64_t rows, float *y,
                  int64_t first, int64_t end) {
    std::vector<float> buffer(static_cast<size_t>(w.inputs));
    for (int64_t row = first; row < end; ++row) {
        dequantize_some_rows(w, table, row, row + 1, buffer.data());
        for (int64_t r = 0; r < rows; ++r) y[r * w.outputs + row] = dot(buffer.data(), x + r * w.inputs, w.inputs);
    }
}

#if defined(__x86_64__)

CT_AVX2 inline float sum(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/// The four bytes of each of the table's floats apart, for shuffles to look up.
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

/// Where `ordered` has the inputs of 64 numbers: vector v of eight holds those whose codes come out together.
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

/// Rows of 4-bit codes in blocks of multiples of 64, whose x lies as `order_inputs` has it.
template <int Rows>
CT_AVX2 void multiply_blocks(const StoredMatrix &w, const ByteTables &tables, const float *x, float *y, int64_t first,
                             int64_t end) {
    constexpr int sums = Rows == 1 ? 4 : Rows <= 3 ? 2 : 1;
    __m256i parts[4];
    for (int k = 0; k < 4; ++k) {
        parts[k] = _mm256_broadcastsi128_si256(
            _mm_loadu_si128(reinterpret_cast<const __m128i *>(tables.parts[static_cast<size_t>(k)].data())));
    }
    const __m256i low = _mm256_set1_epi8(15);
    const uint8_t *codes = bytes(w.codes);
    const Scales scales(w);
    const int64_t per_row = w.inputs / w.block;
    for (int64_t row = first; row < end; ++row) {
        __m256 total[Rows][sums];
        for (auto &list : total) {
            for (auto &one : list) one = _mm256_setzero_ps();
        }
        int64_t i = 0;
        const uint8_t *next = codes + row * w.inputs / 2;
        for (int64_t step = 0; step < w.inputs / 64; ++step, i += 64, next += 32) {
            const __m256 scale = _mm256_set1_ps(scales[row * per_row + (w.block == 64 ? step : i / w.block)]);
            const __m256i packed = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(next));
            for (int half = 0; half < 2; ++half) {
                const __m256i index =
                    _mm256_and_si256(half == 0 ? _mm256_srli_epi16(packed, 4) : packed, low);
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
                        total[r][v % sums] =
                            _mm256_fmadd_ps(value, _mm256_loadu_ps(input + r * w.inputs), total[r][v % sums]);
                    }
                }
            }
        }
        for (int r = 0; r < Rows; ++r) {
            __m256 all = total[r][0];
            for (int k = 1; k < sums; ++k) all = _mm256_add_ps(all, total[r][k]);
            y[r * w.outputs + row] = sum(all);
        }
    }
}

/// Where `ordered` has the inputs of 32 numbers: those of the bytes' upper halves, then those of the lower ones.
void order_halves(const float *x, int64_t count, float *ordered) {
    for (int64_t start = 0; start < count; start += 32) {
        for (int64_t j = 0; j < 16; ++j) {
            ordered[start + j] = x[start + 2 * j];
            ordered[start + 16 + j] = x[start + 2 * j + 1];
        }
    }
}

/// The same where a register holds the whole table, times a block's scale; x lies as `order_halves` has it.
template <int Rows>
CT_AVX512 void multiply_blocks_wide(const StoredMatrix &w, const float *table, const float *x, float *y, int64_t first,
                                    int64_t end) {
    constexpr int sums = Rows == 1 ? 4 : 2;
    const __m512 numbers = _mm512_loadu_ps(table);
    const uint8_t *codes = bytes(w.codes);
    const Scales scales(w);
    const int64_t per_row = w.inputs / w.block;
    for (int64_t row = first; row < end; ++row) {
        __m512 total[Rows][sums];
        for (auto &list : total) {
            for (auto &one : list) one = _mm512_setzero_ps();
        }
        const uint8_t *next = codes + row * w.inputs / 2;
        for (int64_t block = 0, i = 0; block < per_row; ++block) {
            const __m512 scaled = _mm512_mul_ps(numbers, _mm512_set1_ps(scales[row * per_row + block]));
            for (const int64_t stop = i + w.block; i < stop; i += 64) {
                for (int part = 0; part < 2; ++part, next += 16) {
                    // The lookup reads the lowest four bits of each index.
                    const __m512i pairs =
                        _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(next)));
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

/// Eight numbers as they are stored, without a row's scale.
struct Int8Lane {
    const int8_t *codes;
    CT_AVX2 __m256 operator()(int64_t place) const {
        return _mm256_cvtepi32_ps(
            _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(codes + place))));
    }
};

struct BFloatLane {
    const uint16_t *codes;
    CT_AVX2 __m256 operator()(int64_t place) const {
        const __m128i eight = _mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + place));
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
    }
};

struct HalfLane {
    const uint16_t *codes;
    CT_AVX2 __m256 operator()(int64_t place) const {
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i *>(codes + place)));
    }
};

/// Rows whose numbers stand one after another, in multiples of 16.
template <int Rows, typename Lane>
CT_AVX2 void multiply_lanes(const StoredMatrix &w, Lane lane, const float *scales, const float *x, float *y,
                            int64_t first, int64_t end) {
    for (int64_t row = first; row < end; ++row) {
        __m256 total[Rows][2];
        for (auto &list : total) {
            for (auto &one : list) one = _mm256_setzero_ps();
        }
        for (int64_t i = 0; i < w.inputs; i += 16) {
            for (int k = 0; k < 2; ++k) {
                const __m256 value = lane(row * w.inputs + i + 8 * k);
                for (int r = 0; r < Rows; ++r) {
                    total[r][k] = _mm256_fmadd_ps(value, _mm256_loadu_ps(x + r * w.inputs + i + 8 * k), total[r][k]);
                }
            }
        }
        const float scale = scales ? scales[row] / 127.0f : 1.0f;
        for (int r = 0; r < Rows; ++r) y[r * w.outputs + row] = sum(_mm256_add_ps(total[r][0], total[r][1])) * scale;
    }
}

/// Calls the body with the number of rows as a constant.
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

#endif

/// Rows of W that are worth a thread.
int64_t grain(const StoredMatrix &w) { return std::max<int64_t>(1, 65536 / w.inputs); }

}  // namespace

void dequantize_rows(const StoredMatrix &w, int64_t first, int64_t count, float *tile) {
    std::optional<PairTable> table;
    if (w.has_blocks()) table.emplace(floats(w.table));
    ctorch::parallel_for(0, count, grain(w), [&](int64_t from, int64_t to) {
        dequantize_some_rows(w, table ? &*table : nullptr, first + from, first + to, tile + from * w.inputs);
    });
}

void multiply_stored(const StoredMatrix &w, const float *x, int64_t rows, float *y) {
    if (rows == 0) return;
#if defined(__x86_64__)
    if (has_avx2() && w.has_blocks() && w.inputs % 64 == 0 && w.block % 64 == 0 && w.inputs % w.block == 0) {
        std::vector<float> ordered(static_cast<size_t>(rows * w.inputs));
        if (has_avx512()) {
            order_halves(x, rows * w.inputs, ordered.data());
            ctorch::parallel_for(0, w.outputs, grain(w), [&](int64_t from, int64_t to) {
                with_rows(rows, [&](auto count) {
                    multiply_blocks_wide<count>(w, floats(w.table), ordered.data(), y, from, to);
                });
            });
            return;
        }
        const ByteTables tables(floats(w.table));
        order_inputs(x, rows * w.inputs, ordered.data());
        ctorch::parallel_for(0, w.outputs, grain(w), [&](int64_t from, int64_t to) {
            with_rows(rows, [&](auto count) {
                multiply_blocks<count>(w, tables, ordered.data(), y, from, to);
            });
        });
        return;
    }
    const at::ScalarType type = w.codes.scalar_type();
    if (has_avx2() && w.inputs % 16 == 0 && (w.has_rows() || type == at::kBFloat16 || type == at::kHalf)) {
        ctorch::parallel_for(0, w.outputs, grain(w), [&](int64_t from, int64_t to) {
            with_rows(rows, [&](auto count) {
                if (w.has_rows()) {
                    multiply_lanes<count>(w, Int8Lane{static_cast<const int8_t *>(w.codes.const_data_ptr())},
                                          floats(w.scales), x, y, from, to);
                } else if (type == at::kHalf) {
                    multiply_lanes<count>(w, HalfLane{static_cast<const uint16_t *>(w.codes.const_data_ptr())},
                                          nullptr, x, y, from, to);
                } else {
                    multiply_lanes<count>(w, BFloatLane{static_cast<const uint16_t *>(w.codes.const_data_ptr())},
                                          nullptr, x, y, from, to);
                }
            });
        });
        return;
    }
#endif
    std::optional<PairTable> table;
    if (w.has_blocks()) table.emplace(floats(w.table));
    ctorch::parallel_for(0, w.outputs, grain(w), [&](int64_t from, int64_t to) {
        multiply_any(w, table ? &*table : nullptr, x, rows, y, from, to);
    });
}

}  // namespace ctorch

extern "C" void ct_use_wide_vectors(bool allowed) {
#if defined(__x86_64__)
    ctorch::avoids_avx512 = !allowed;
#else
    (void)allowed;
#endif
}
