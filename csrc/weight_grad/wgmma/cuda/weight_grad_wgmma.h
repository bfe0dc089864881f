// weight_grad on sm_90a by TMA and wgmma, in one launch. Not confirmed on a GPU. Strides are in
// elements, not bytes.
#pragma once

#include "weight_grad/cuda/weight_grad_cuda.h"

namespace maskedconv {

// Why the kernel does not take the problem, or an empty text. Addresses and strides of `sizes` are
// not read.
const char* weight_grad_wgmma_sizes_refusal(const WeightGrad& sizes, ElementType type,
                                            const CudaLimits& limits);
const char* weight_grad_wgmma_refusal(const WeightGrad& problem, ElementType type,
                                      const CudaLimits& limits);

// Workspace of a launch: floats, and counters of any values, which it sets to 0. There are no more
// counters than multiprocessors.
struct WgmmaWorkspace {
    int64_t floats, counters;
};
WgmmaWorkspace weight_grad_wgmma_workspace(const WeightGrad& sizes, const CudaLimits& limits);

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
// `problem.type` is not read. Sums in a fixed order: the same result each time on one kind of GPU.
// A value that is not finite reaches the elements that it is a factor of, and no others.
void weight_grad_wgmma(const WeightGrad& problem, ElementType type, const CudaLimits& limits,
                       float* floats, unsigned* counters, uintptr_t stream);

} // namespace maskedconv
