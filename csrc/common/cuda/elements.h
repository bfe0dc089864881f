// float32 and the 16-bit element types: each into the other, several at once, and by their name.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "common/cuda/device.h"
#include "common/types.h"

namespace maskedconv {

__device__ __forceinline__ float to_float32(float value) { return value; }
__device__ __forceinline__ float to_float32(__nv_bfloat16 value) {
    return __uint_as_float(static_cast<uint32_t>(__bfloat16_as_ushort(value)) << 16);
}
__device__ __forceinline__ float to_float32(__half value) { return __half2float(value); }

// Rounds to nearest, ties to even.
template <typename T> __device__ __forceinline__ T from_float32(float value);
template <> __device__ __forceinline__ float from_float32(float value) { return value; }
template <> __device__ __forceinline__ __nv_bfloat16 from_float32(float value) {
    return __float2bfloat16_rn(value);
}
template <> __device__ __forceinline__ __half from_float32(float value) {
    return __float2half_rn(value);
}

// Two 16-bit elements side by side, the first in the lower bits.
template <typename T> __device__ __forceinline__ float2 unpack(uint32_t bits);
template <> __device__ __forceinline__ float2 unpack<__nv_bfloat16>(uint32_t bits) {
    return {__uint_as_float(bits << 16), __uint_as_float(bits & 0xffff0000u)};
}
template <> __device__ __forceinline__ float2 unpack<__half>(uint32_t bits) {
    return {__half2float(__ushort_as_half(static_cast<uint16_t>(bits))),
            __half2float(__ushort_as_half(static_cast<uint16_t>(bits >> 16)))};
}

// Rounds two values and packs them; negative ones become 0.
template <typename T> __device__ __forceinline__ uint32_t pack_relu(float low, float high);
template <> __device__ __forceinline__ uint32_t pack_relu<__nv_bfloat16>(float low, float high) {
    return pack_relu_bfloat16(low, high);
}
template <> __device__ __forceinline__ uint32_t pack_relu<__half>(float low, float high) {
    return pack_relu_float16(low, high);
}

// Elements that are loaded or stored at once: their address is a multiple of all their bytes.
template <typename T, int kWidth> struct alignas(sizeof(T) * kWidth) Vector {
    T values[kWidth];
};

template <int kWidth, typename T> __device__ __forceinline__ Vector<T, kWidth> load(const T* data) {
    return *reinterpret_cast<const Vector<T, kWidth>*>(data);
}

template <int kWidth, typename T>
__device__ __forceinline__ void store(T* data, const Vector<T, kWidth>& vector) {
    *reinterpret_cast<Vector<T, kWidth>*>(data) = vector;
}

// Calls body(T()) for the element type.
template <typename F> void for_element(ElementType type, const F& body) {
    if (type == ElementType::bfloat16)
        body(__nv_bfloat16());
    else if (type == ElementType::float16)
        body(__half());
    else
        body(float());
}

} // namespace maskedconv
