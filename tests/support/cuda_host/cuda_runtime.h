// Stands in for CUDA's header of this name: what the host's calls do to a GPU that has 227 KiB of
// shared memory for a block. Kernels do not run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <utility>

#define CUDART_VERSION 13000

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
enum { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaFuncAttributeMaxDynamicSharedMemorySize };
enum { cudaLaunchAttributeClusterDimension, cudaEnableDefault };
enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess };
using cudaStream_t = struct Stream*;

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct Size {
    unsigned x, y, z;
};
struct cudaLaunchAttribute {
    int id;
    struct {
        Size clusterDim;
    } val;
};
struct cudaFuncAttributes {};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute* attrs;
    int numAttrs;
};

namespace host {

constexpr int kSharedBytes = 227 * 1024;
inline std::map<const void*, int> allowed;   // bytes of shared memory, by kernel
inline std::function<void()> another_thread; // runs once, just before the next launch
inline thread_local bool has_context = false;
inline bool refuses_kernels = false;

inline cudaError_t launch(const void* kernel, size_t bytes) {
    if (another_thread)
        std::exchange(another_thread, nullptr)();
    const int most = allowed.count(kernel) ? allowed[kernel] : 48 * 1024;
    has_context = true;
    return bytes <= static_cast<size_t>(most) ? cudaSuccess : cudaErrorInvalidValue;
}

} // namespace host

inline const char* cudaGetErrorString(cudaError_t) { return "invalid argument"; }

// As in a thread that has not set a device: the first one, without a context.
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return host::has_context = true, cudaSuccess; }
inline cudaError_t cudaDeviceGetAttribute(int* value, int, int) {
    return *value = host::kSharedBytes, cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, int, int bytes) {
    host::allowed[kernel] = bytes;
    return bytes <= host::kSharedBytes ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaFuncGetAttributes(cudaFuncAttributes*, const void*) {
    return host::refuses_kernels ? cudaErrorInvalidValue : cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaLaunchKernel(const void* kernel, dim3, dim3, void**, size_t bytes,
                                    cudaStream_t) {
    return host::launch(kernel, bytes);
}
inline cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* kernel,
                                       void**) {
    return host::launch(kernel, config->dynamicSmemBytes);
}
