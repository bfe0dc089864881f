// weight_grad on CUDA (sm_80 and later). Strides are in elements, not bytes.
#pragma once

#include "weight_grad/weight_grad.h"

namespace maskedconv {

// What the choice of tiles needs to know of the GPU.
struct CudaLimits {
    int multiprocessors;
    int shared_bytes; // that one block may have
};

// How many float32 sums of the size of the gradient the kernel writes before adding them up: the
// workspace is that many times as large, and needs none for one. 0: there is no room for the
// problem in shared memory.
int weight_grad_cuda_splits(const WeightGrad& problem, ElementType type, const CudaLimits& limits);

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
// `problem.type` is not read. Sums in a fixed order: the same result each time on one kind of GPU.
// A value that is not finite reaches the elements that it is a factor of, and no others.
void weight_grad_cuda(const WeightGrad& problem, ElementType type, const CudaLimits& limits,
                      float* workspace, uintptr_t stream);

} // namespace maskedconv
