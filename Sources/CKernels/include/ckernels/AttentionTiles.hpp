// Attention over packed sequences: layout, options and tiles.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ckernels {

/// Layout and options of attention over packed sequences.
struct AttentionSettings {
    std::vector<int64_t> query_offsets, key_offsets;
    bool causal;
    double scale, dropout;
    uint64_t seed;
    /// Sliding window: keys that a causal query sees, its own among them; 0 for all. Other queries see as many in each
    /// direction.
    int64_t window = 0;
    /// Soft cap c: scores s become c · tanh(s / c); 0 for none.
    double softcap = 0;
    /// Whether the bias depends on the key alone (ALiBi): its columns are the keys of a sequence from the first on.
    bool bias_by_key = false;

    size_t rows() const { return query_offsets.size() - 1; }
    int64_t queries(size_t row) const { return query_offsets[row + 1] - query_offsets[row]; }
    int64_t keys(size_t row) const { return key_offsets[row + 1] - key_offsets[row]; }
    /// Keys of a sequence that precede its first query.
    int64_t prefix(size_t row) const { return keys(row) - queries(row); }
    int64_t longest_prefix() const {
        int64_t longest = 0;
        for (size_t row = 0; row < rows(); ++row) longest = std::max(longest, prefix(row));
        return longest;
    }
};

/// A block of one sequence's queries with the keys that at least one of them sees; both relative to the sequence.
struct AttentionTile {
    int64_t query, queries, key, keys;
    /// Number of leading queries that see the tile's first key, if causal.
    int64_t reach;
    /// The first query's own token among the tile's keys.
    int64_t own;
};

/// Queries per tile where not all queries see all keys: few enough that few masked scores are computed, and enough
/// for efficient matmuls.
inline int64_t tile_queries(const AttentionSettings &settings) {
    return settings.window > 0 ? std::min<int64_t>(128, std::max<int64_t>(32, settings.window)) : 128;
}

inline std::vector<AttentionTile> tiles_of(const AttentionSettings &settings, size_t row) {
    int64_t queries = settings.queries(row), keys = settings.keys(row), before = settings.prefix(row);
    // A sequence without queries has one empty tile.
    if ((!settings.causal && settings.window == 0) || queries == 0) return {{0, queries, 0, keys, queries, before}};
    std::vector<AttentionTile> tiles;
    int64_t step = tile_queries(settings);
    for (int64_t query = 0; query < queries; query += step) {
        int64_t count = std::min(step, queries - query), end = before + query + count, first = 0, reach = count;
        if (settings.window > 0) {
            int64_t oldest = before + query - settings.window + 1;
            first = std::max<int64_t>(0, oldest);
            reach = std::min(count, first - oldest + 1);
            if (!settings.causal) end = std::min(keys, end + settings.window - 1);
        }
        tiles.push_back({query, count, first, end - first, reach, before + query - first});
    }
    return tiles;
}

/// Seed of a tile's dropout mask.
inline uint64_t tile_seed(uint64_t seed, size_t row, size_t tile) {
    return seed + 0x9E3779B97F4A7C15ULL * (row + 1) + 0xD1B54A32D192ED03ULL * tile;
}

/// First column of a sequence in the bias, which is laid out for the longest prefix unless it is by key.
inline int64_t skipped_columns(const AttentionSettings &settings, bool has_bias, size_t row) {
    return has_bias && !settings.bias_by_key ? settings.longest_prefix() - settings.prefix(row) : 0;
}

}  // namespace ckernels
