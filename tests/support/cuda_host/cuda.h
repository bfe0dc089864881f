// Stands in for CUDA's header of this name: the driver encodes tensor maps in a thread with a
// context alone.
#pragma once

#include "cuda_runtime.h"

using CUresult = int;
using cuuint32_t = uint32_t;
using cuuint64_t = uint64_t;
constexpr CUresult CUDA_SUCCESS = 0, CUDA_ERROR_INVALID_CONTEXT = 201;
enum {
    CU_TENSOR_MAP_DATA_TYPE_UINT16,
    CU_TENSOR_MAP_INTERLEAVE_NONE,
    CU_TENSOR_MAP_SWIZZLE_NONE,
    CU_TENSOR_MAP_SWIZZLE_128B,
    CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
};
struct CUtensorMap {
    uint64_t content[16];
};

inline CUresult cuTensorMapEncodeTiled(CUtensorMap*, int, uint32_t, void*, const cuuint64_t*,
                                       const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, int,
                                       int, int, int) {
    return host::has_context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

inline cudaError_t cudaGetDriverEntryPointByVersion(const char*, void** found, unsigned, int,
                                                    cudaDriverEntryPointQueryResult* result) {
    *found = reinterpret_cast<void*>(&cuTensorMapEncodeTiled);
    *result = cudaDriverEntryPointSuccess;
    return cudaSuccess;
}
