// Tensor-core fragments of the two operands of weight_grad, by element type.
//
// The product is sum[channel, filter] += x[pixel, channel] * grad[pixel, filter] over kPixels
// pixels, both operands in shared memory with one pixel a row. Layouts: PTX ISA, "Matrix fragments
// for mma.m16n8k16" and "mma.m16n8k8".
#pragma once

#include <type_traits>

#include "common/cuda/elements.h"
#include "weight_grad/cuda/plan.h"

namespace maskedconv {

// NaN stays NaN, as in PyTorch.
__device__ __forceinline__ float relu(float value) { return value < 0.0f ? 0.0f : value; }

// sum [16, 8] += a [16, 16] b [16, 8] of 16-bit elements.
template <typename T>
__device__ __forceinline__ void mma(float (&sum)[4], const uint32_t (&a)[4],
                                    const uint32_t (&b)[2]) {
    if constexpr (std::is_same_v<T, __half>)
        mma_float16(sum, a, b);
    else
        mma_bfloat16(sum, a, b);
}

// The first number of bytes behind a pointer into shared memory.
template <typename T> __device__ __forceinline__ const T* bytes_behind(const T* from, int bytes) {
    return reinterpret_cast<const T*>(reinterpret_cast<const unsigned char*>(from) + bytes);
}

template <typename T> struct Fragments {
    static constexpr int kPixels = 16;
    static constexpr int kGradRows = 1;                // rows of grad that a lane points at
    static constexpr int kShifts = (kColumns + 1) / 2; // an instruction loads two columns

    static __device__ __forceinline__ int grad_pixel(int lane, int) { return lane & 15; }
    static __device__ __forceinline__ int grad_element(int) { return 0; }
    // The column to which a lane points for load number `shift`.
    static __device__ __forceinline__ int column(int lane, int shift) {
        const int column = shift * 2 + (lane >> 4);
        return column < kColumns ? column : kColumns - 1;
    }

    // Offset of a lane's row from a step's first pixel and first of 16 channels, in elements of x.
    static __device__ __forceinline__ int x_element(int pitch, int lane) {
        const int pixel = (lane & 7) + (lane >> 4) * 8, channel = (lane >> 3 & 1) * 8;
        return pixel * pitch + channel;
    }

    static __device__ __forceinline__ void load_x(uint32_t (&to)[4], const T* x, int) {
        load_matrices_transposed(to, x);
    }

    // Rounds to the type of the product's operands; 16-bit elements need none.
    static __device__ __forceinline__ void round(uint32_t (&)[4]) {}

    // Loads at least the columns with their bit set in `met`.
    static __device__ __forceinline__ void load_grad(uint32_t (&to)[kColumns][2],
                                                     const T* const (&rows)[kGradRows],
                                                     const int (&shift)[kShifts], unsigned met) {
#pragma unroll
        for (int j = 0; j + 1 < kColumns; j += 2) {
            if ((met >> j & 3) == 0)
                continue;
            uint32_t two[4];
            load_matrices_transposed(two, bytes_behind(rows[0], shift[j / 2]));
            to[j][0] = two[0], to[j][1] = two[1], to[j + 1][0] = two[2], to[j + 1][1] = two[3];
        }
        if (kColumns % 2 == 1 && (met >> (kColumns - 1)) != 0)
            load_matrices_transposed(to[kColumns - 1], bytes_behind(rows[0], shift[kShifts - 1]));
    }

    // x = relu(x * scale + shift), and if kMask 0 for pixels with a 0 bit in `inside`. A lane
    // has the channels lane / 4 (scale[0]) and lane / 4 + 8 (scale[1]).
    template <bool kMask>
    static __device__ __forceinline__ void normalise(uint32_t (&x)[4], const float (&scale)[2],
                                                     const float (&shift)[2], unsigned inside,
                                                     int lane) {
        for (int i = 0; i < 4; ++i) {
            const float2 two = unpack<T>(x[i]);
            const float low = fmaf(two.x, scale[i & 1], shift[i & 1]);
            const float high = fmaf(two.y, scale[i & 1], shift[i & 1]);
            x[i] = pack_relu<T>(low, high);
            if constexpr (kMask) {
                const unsigned bits = inside >> ((i >> 1) * 8 + (lane & 3) * 2);
                x[i] &= (bits & 1 ? 0xffffu : 0u) | (bits & 2 ? 0xffff0000u : 0u);
            }
        }
    }

    static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&x)[4],
                                                    const uint32_t (&grad)[2]) {
        mma<T>(sum, x, grad);
    }
};

template <> struct Fragments<float> {
    static constexpr int kPixels = 8;
    static constexpr int kGradRows = 2;
    static constexpr int kShifts = kColumns;

    static __device__ __forceinline__ int grad_pixel(int lane, int row) {
        return (lane & 3) + row * 4;
    }
    static __device__ __forceinline__ int grad_element(int lane) { return lane >> 2; }
    static __device__ __forceinline__ int column(int, int shift) { return shift; }

    static __device__ __forceinline__ int x_element(int pitch, int lane) {
        return (lane & 3) * pitch + (lane >> 2);
    }

    static __device__ __forceinline__ void load_x(uint32_t (&to)[4], const float* x, int pitch) {
        for (int i = 0; i < 4; ++i)
            to[i] = __float_as_uint(x[(i >> 1) * 4 * pitch + (i & 1) * 8]);
    }

    static __device__ __forceinline__ void round(uint32_t (&x)[4]) {
        for (uint32_t& value : x)
            value = round_to_tf32(__uint_as_float(value));
    }

    static __device__ __forceinline__ void load_grad(uint32_t (&to)[kColumns][2],
                                                     const float* const (&rows)[kGradRows],
                                                     const int (&shift)[kShifts], unsigned met) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
            for (int i = 0; i < kGradRows && (met >> j & 1) != 0; ++i)
                to[j][i] = round_to_tf32(*bytes_behind(rows[i], shift[j]));
    }

    template <bool kMask>
    static __device__ __forceinline__ void normalise(uint32_t (&x)[4], const float (&scale)[2],
                                                     const float (&shift)[2], unsigned inside,
                                                     int lane) {
        for (int i = 0; i < 4; ++i) {
            const float value = relu(fmaf(__uint_as_float(x[i]), scale[i & 1], shift[i & 1]));
            const bool keep = !kMask || (inside >> ((i >> 1) * 4 + (lane & 3)) & 1);
            x[i] = keep ? __float_as_uint(value) : 0u;
        }
    }

    static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&x)[4],
                                                    const uint32_t (&grad)[2]) {
        mma_tf32(sum, x, grad);
    }
};

} // namespace maskedconv
