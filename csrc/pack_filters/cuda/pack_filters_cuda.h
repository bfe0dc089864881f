// pack_filters on CUDA: learned and frozen filters, of float32, to one bank. All strides are in
// elements, not bytes.
#pragma once

#include <cstdint>
#include <string>

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

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
void pack_filters_cuda(const FilterBank& bank, const FilterPart& learned, const FilterPart& frozen,
                       int slice_dim, ElementType type, uintptr_t stream);

// The error with which the CUDA runtime refuses the kernel on the current device, or an empty text.
std::string pack_filters_cuda_error();

} // namespace maskedconv
