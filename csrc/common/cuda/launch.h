// How the host launches kernels, by the CUDA runtime alone. Under MASKEDCONV_EMULATION the same
// names run kernels on the CPU (common/emulation).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace maskedconv {

struct ClusterLaunch {
    dim3 grid;
    int cluster; // blocks side by side in the grid that form one
    int threads, shared_bytes;
    uintptr_t stream; // a cudaStream_t of the current device
};

#ifndef MASKEDCONV_EMULATION

inline void check_cuda(cudaError_t error, const char* what) {
    if (error != cudaSuccess)
        throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

// The error with which the runtime refuses a kernel on the current device, or an empty text.
inline std::string kernel_error(const void* kernel) {
    cudaFuncAttributes attributes;
    const cudaError_t error = cudaFuncGetAttributes(&attributes, kernel);
    return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

// Zeros memory for later work on `stream`; a separate node in a captured graph.
inline void set_to_zero(const char* name, void* memory, int64_t bytes, uintptr_t stream) {
    check_cuda(cudaMemsetAsync(memory, 0, static_cast<size_t>(bytes),
                               reinterpret_cast<cudaStream_t>(stream)),
               name);
}

// Allows a kernel as much shared memory as a block of the current device may have, and never the
// number of one launch: another thread may launch the same kernel with more before this one does.
inline void allow_all_shared_memory(const char* name, const void* kernel) {
    int device, bytes;
    check_cuda(cudaGetDevice(&device), name);
    check_cuda(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
               name);
    check_cuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
               name);
}

// Launches on `stream` (a cudaStream_t) of the current device; throws std::runtime_error.
template <typename Arguments>
void launch(const char* name, void (*kernel)(Arguments), dim3 grid, int threads, int shared_bytes,
            uintptr_t stream, Arguments arguments) {
    constexpr int kAlwaysAllowed = 48 * 1024;
    const auto function = reinterpret_cast<const void*>(kernel);
    if (shared_bytes > kAlwaysAllowed)
        allow_all_shared_memory(name, function);
    void* pointers[] = {&arguments};
    check_cuda(cudaLaunchKernel(function, grid, dim3(threads), pointers, shared_bytes,
                                reinterpret_cast<cudaStream_t>(stream)),
               name);
}

template <typename Arguments>
void launch_clusters(const char* name, void (*kernel)(Arguments), const ClusterLaunch& how,
                     Arguments arguments) {
    const auto function = reinterpret_cast<const void*>(kernel);
    allow_all_shared_memory(name, function);
    cudaLaunchAttribute cluster{};
    cluster.id = cudaLaunchAttributeClusterDimension;
    cluster.val.clusterDim = {static_cast<unsigned>(how.cluster), 1, 1};
    cudaLaunchConfig_t config{};
    config.gridDim = how.grid, config.blockDim = dim3(how.threads);
    config.dynamicSmemBytes = how.shared_bytes;
    config.stream = reinterpret_cast<cudaStream_t>(how.stream);
    config.attrs = &cluster, config.numAttrs = 1;
    void* pointers[] = {&arguments};
    check_cuda(cudaLaunchKernelExC(&config, function, pointers), name);
}

#endif

} // namespace maskedconv
