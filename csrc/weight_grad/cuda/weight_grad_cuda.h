// weight_grad on CUDA (sm_80 and later). Strides are in elements, not bytes.
#pragma once

#include "weight_grad/weight_grad.h"

namespace maskedconv {

// Properties of the GPU that determine the tiles.
struct CudaLimits {
    int multiprocessors;
    int shared_bytes; // that one block may have
};

// How many float32 sums of the size of the gradient the kernel writes before adding them up. The
// workspace holds all of them; one needs no workspace. 0: the problem is too large for shared
// memory, a grid or 32-bit indices.
int weight_grad_cuda_splits(const WeightGrad& problem, ElementType type, const CudaLimits& limits);

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
// `problem.type` is not read. Sums in a fixed order: the same result each time on one kind of GPU.
// A value that is not finite reaches the elements that it is a factor of, and no others.
void weight_grad_cuda(const WeightGrad& problem, ElementType type, const CudaLimits& limits,
                      float* workspace, uintptr_t stream);

} // namespace maskedconv
