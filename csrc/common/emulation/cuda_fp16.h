// Stands in for CUDA's header of this name when kernels are compiled for the CPU.
#pragma once

#include "cuda_runtime.h"

struct __half {
    _Float16 value;
};

inline __half __float2half_rn(float value) { return {static_cast<_Float16>(value)}; }
inline float __half2float(__half value) { return static_cast<float>(value.value); }

inline uint16_t __half_as_ushort(__half value) {
    uint16_t bits;
    std::memcpy(&bits, &value.value, 2);
    return bits;
}

inline __half __ushort_as_half(uint16_t bits) {
    __half half;
    std::memcpy(&half.value, &bits, 2);
    return half;
}
