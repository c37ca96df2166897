// bf16 in loops that are compiled for several processors. (libtorch's BFloat16 has constructors, which an unoptimized
// build doesn't emit for such loops.)
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "Clones.hpp"

namespace ctorch {

/// The upper 16 bits of an fp32 value.
struct BFloat {
    uint16_t bits;

    CT_INLINED operator float() const {
        const uint32_t all = static_cast<uint32_t>(bits) << 16;
        float x;
        std::memcpy(&x, &all, sizeof x);
        return x;
    }
};

/// x converted to another type.
template <typename Number> CT_INLINED Number rounded(float x) {
    if constexpr (std::is_same_v<Number, float>) {
        return x;
    } else {
        // Round to nearest, ties to even.
        uint32_t all;
        std::memcpy(&all, &x, sizeof all);
        const uint32_t upper = (all + 0x7FFF + ((all >> 16) & 1)) >> 16;
        return {static_cast<uint16_t>(x == x ? upper : 0x7FC0)};
    }
}

}  // namespace ctorch
