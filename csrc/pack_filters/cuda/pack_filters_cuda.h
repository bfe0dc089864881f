// pack_filters on CUDA, of float32 filters. Strides are in elements, not bytes.
#pragma once

#include "pack_filters/pack_filters.h"

namespace maskedconv {

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
void pack_filters_cuda(const FilterBank& bank, const FilterPart& learned, const FilterPart& frozen,
                       int slice_dim, ElementType type, uintptr_t stream);

} // namespace maskedconv
