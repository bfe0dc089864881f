// Blocks that leave values for each other in global memory: the one that ends last may read them.
#pragma once

#include "common/cuda/device.h"

namespace maskedconv {

// Whether this block is the last of `blocks` to count at `counter`, 0 before; all its threads learn
// it, by way of `shared` in shared memory. It sees what the others wrote before.
__device__ __forceinline__ bool ends_last(unsigned* counter, unsigned blocks, bool* shared) {
    __threadfence(); // this thread's values are visible to all before the count is
    __syncthreads();
    if (threadIdx.x == 0)
        *shared = atomicAdd(counter, 1u) == blocks - 1;
    __syncthreads();
    __threadfence();
    return *shared;
}

} // namespace maskedconv
