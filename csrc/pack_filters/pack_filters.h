// pack_filters: learned and frozen filters to one bank. All strides are in elements, not bytes.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace maskedconv {

// One part of the bank: indices [begin, end) of the slice dimension are read from `data`.
struct FilterPart {
    const void* data;
    Four strides;
    int64_t begin;
    int64_t end;
};

struct FilterBank {
    void* data;
    Four strides;
    Four shape; // O, I / groups, kH, kW
};

enum class PackKind { copy2, copy4, copy8, float_to_bfloat16 };

// Which loop copies an element of `from_size` bytes to one of `to_size`; throws
// std::invalid_argument where there is none.
PackKind pack_kind(int64_t from_size, int64_t to_size);

void pack_filters_cpu(const FilterBank& bank, const FilterPart& part, int slice_dim, PackKind kind);

} // namespace maskedconv
