// What Python hands to pack_filters: checked, and as the kernels take it.
#pragma once

#include "common.h"
#include "pack_filters/pack_filters.h"

namespace maskedconv {

// `begin` and `end` of the slice dimension of a bank of `shape`.
inline FilterPart filter_part(const Checks& checks, const char* name, uintptr_t data, Four strides,
                              Four shape, int slice_dim, int64_t begin, int64_t end) {
    shape[static_cast<size_t>(slice_dim)] = end - begin;
    checks.tensor(name, data, shape, strides);
    return {reinterpret_cast<const void*>(data), strides, begin, end};
}

struct PackArguments {
    FilterBank bank;
    FilterPart learned, frozen;
};

inline PackArguments pack_arguments(const char* operation, uintptr_t out, Four out_strides,
                                    uintptr_t learned, Four learned_strides, uintptr_t frozen,
                                    Four frozen_strides, Four shape, int64_t num_learned,
                                    int slice_dim) {
    const Checks checks(operation);
    checks.between("slice_dim", slice_dim, 0, 3);
    checks.tensor("out", out, shape, out_strides);
    const int64_t all = shape[static_cast<size_t>(slice_dim)];
    checks.between("num_learned", num_learned, 0, all);
    return {
        {reinterpret_cast<void*>(out), out_strides, shape},
        filter_part(checks, "learned", learned, learned_strides, shape, slice_dim, 0, num_learned),
        filter_part(checks, "frozen", frozen, frozen_strides, shape, slice_dim, num_learned, all)};
}

} // namespace maskedconv
