// Blocks of quantized values in GGUF files, in llama.cpp's layouts.
#pragma once

#include <cstdint>

namespace ckernels {

/// Types with blocks of 32 or 256 values, by their numbers in files.
enum class GGUFBlocks : uint32_t { q4_0 = 2, q4_1 = 3, q5_0 = 6, q5_1 = 7, q8_0 = 8, q4_K = 12, q5_K = 13, q6_K = 14 };

/// Number of values of a block, and its size in bytes; 0 for a type that isn't written.
int64_t gguf_block_values(GGUFBlocks);
int64_t gguf_block_bytes(GGUFBlocks);

/// Quantizes `count` values, whole blocks, one after another. Values that aren't finite count as 0.
void encode_gguf(GGUFBlocks, const float *values, int64_t count, uint8_t *out);

}  // namespace ckernels
