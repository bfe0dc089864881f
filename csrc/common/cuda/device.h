// The instructions that the kernels use beyond plain CUDA C++.
// Under MASKEDCONV_EMULATION the same names run on the CPU (common/emulation).
#pragma once

#include <cstdint>

#include "common/cuda/launch.h"

#ifdef MASKEDCONV_EMULATION
#include "common/emulation/emulation.h"
#else

namespace maskedconv {

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ unsigned char* shared_memory() {
    extern __shared__ __align__(16) unsigned char memory[];
    return memory;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// Copies `bytes` (0 to kBytes) from global to shared memory, and zeros up to kBytes; both pointers
// are aligned to kBytes. It lands at the wait for its group.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* to, const void* from, int bytes) {
    if constexpr (kBytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                     "l"(from), "r"(bytes)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(shared_address(to)),
                     "l"(from), "r"(bytes), "n"(kBytes)
                     : "memory");
}

// Copies 16 bytes, or zeros; `from` may be anything then.
__device__ __forceinline__ void copy_async_or_zeros(void* to, const void* from, bool present) {
    asm volatile("{\n"
                 ".reg .pred zeros;\n"
                 "setp.eq.s32 zeros, %2, 0;\n"
                 "cp.async.cg.shared.global [%0], [%1], 16, zeros;\n"
                 "}" ::"r"(shared_address(to)),
                 "l"(from), "r"(static_cast<int>(present))
                 : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most kPending of this thread's latest groups are under way.
template <int kPending> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// 8x8 matrices of 16-bit elements, transposed. Lane l points at row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(shared_address(row))
                 : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(uint32_t (&to)[2], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(row))
                 : "memory");
}

// sum [16, 8] += a [16, K] b [K, 8]; K is 16 for 16-bit elements and 8 for tf32.
#define MASKEDCONV_MMA(name, shape_and_types)                                                      \
    __device__ __forceinline__ void name(float (&sum)[4], const uint32_t (&a)[4],                  \
                                         const uint32_t (&b)[2]) {                                 \
        asm("mma.sync.aligned." shape_and_types                                                    \
            " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                     \
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])                               \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                   \
    }
MASKEDCONV_MMA(mma_bfloat16, "m16n8k16.row.col.f32.bf16.bf16.f32")
MASKEDCONV_MMA(mma_float16, "m16n8k16.row.col.f32.f16.f16.f32")
MASKEDCONV_MMA(mma_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#undef MASKEDCONV_MMA

// The two values rounded, negative ones to 0; NaN stays NaN. `low` lies in the lower bits.
__device__ __forceinline__ uint32_t pack_relu_bfloat16(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ __forceinline__ uint32_t pack_relu_float16(float low, float high) {
    uint32_t bits;
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

// Has the compiler keep a value that it would rather recompute, and compute nothing from it
// earlier.
__device__ __forceinline__ void keep(int& value) { asm volatile("" : "+r"(value)); }

__device__ __forceinline__ uint32_t round_to_tf32(float value) {
    uint32_t bits;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
    return bits;
}

// Adds in any order, to a sum that no thread reads before the next barrier or launch.
__device__ __forceinline__ void add_atomically(unsigned* to, unsigned value) {
    atomicAdd(to, value);
}

// For tests, which then see that a sum of finite products was not finite.
__device__ __forceinline__ void count_computed_again() {}

} // namespace maskedconv
#endif
