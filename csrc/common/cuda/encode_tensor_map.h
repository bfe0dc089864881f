// Tensor maps for kernels, by the driver, which is found at run time: nothing links to libcuda.
#pragma once

#include <cuda.h>

#include "common/cuda/launch.h"
#include "common/cuda/tensor_map.h"

namespace maskedconv {

using TensorMap = CUtensorMap;

inline auto find_encoder() {
    constexpr auto kName = "cuTensorMapEncodeTiled";
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result;
#if CUDART_VERSION >= 12050
    constexpr unsigned kSince = 12000; // the CUDA version that brought it
    check_cuda(cudaGetDriverEntryPointByVersion(kName, &found, kSince, cudaEnableDefault, &result),
               kName);
#else
    check_cuda(cudaGetDriverEntryPoint(kName, &found, cudaEnableDefault, &result), kName);
#endif
    if (result != cudaDriverEntryPointSuccess)
        throw std::runtime_error("this driver has no cuTensorMapEncodeTiled");
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found);
}

// The driver encodes only in a thread that has a context. PyTorch may have given it none, as in a
// thread of autograd; to set the device gives it one, and is allowed while a graph is captured.
inline void ensure_context() {
    int device;
    check_cuda(cudaGetDevice(&device), "cudaGetDevice");
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
}

inline TensorMap encode_tensor_map(const TensorMapArguments& a) {
    static const auto encode = find_encoder();
    ensure_context();
    const cuuint32_t every[kMapSizes] = {1, 1, 1, 1};
    const auto swizzle =
        a.swizzle == Swizzle::none ? CU_TENSOR_MAP_SWIZZLE_NONE : CU_TENSOR_MAP_SWIZZLE_128B;
    cuuint64_t sizes[kMapSizes], steps[kMapSizes - 1];
    for (int i = 0; i < kMapSizes; ++i)
        sizes[i] = a.sizes[i];
    for (int i = 0; i < kMapSizes - 1; ++i)
        steps[i] = a.steps[i];
    TensorMap map;
    // Elements are only moved: as bits, for bfloat16 and float16 alike. The fill is zero.
    const CUresult error =
        encode(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, kMapSizes, const_cast<void*>(a.address), sizes,
               steps, a.box, every, CU_TENSOR_MAP_INTERLEAVE_NONE, swizzle,
               CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    if (error != CUDA_SUCCESS)
        throw std::runtime_error("cuTensorMapEncodeTiled returned " + std::to_string(error));
    return map;
}

} // namespace maskedconv
