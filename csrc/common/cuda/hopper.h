// The instructions of sm_90a that kernels use: barriers in shared memory, copies by the Tensor
// Memory Accelerator (TMA), products of warpgroups.
// Under MASKEDCONV_EMULATION the same names run on the CPU (common/emulation/hopper.h).
//
// Sources: PTX ISA, "mbarrier", "cp.async.bulk.tensor", "Asynchronous Warpgroup Level Matrix
// Instructions", "barrier.cluster", "mapa". None of this has run on a GPU yet.
#pragma once

#include "common/cuda/device.h"
#include "common/cuda/matrix_descriptor.h"
#include "common/cuda/tensor_map.h"

namespace maskedconv {

// The start of a box; coordinates may lie outside of the images, where elements are zeros.
struct BoxPlace {
    int channel, column, row, image;
};

using Barrier = uint64_t; // in shared memory

} // namespace maskedconv

#ifdef MASKEDCONV_EMULATION
#include "common/emulation/hopper.h"
#else
#include "common/cuda/encode_tensor_map.h"

namespace maskedconv {

// Aligned to the period of TMA's swizzling.
__device__ __forceinline__ unsigned char* swizzled_memory() {
    extern __shared__ __align__(1024) unsigned char swizzled[];
    return swizzled;
}

__device__ __forceinline__ void barrier_init(Barrier* barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
                 "r"(arrivals)
                 : "memory");
}

// After barrier_init, so that copies see it; other threads need a barrier of the block as well.
__device__ __forceinline__ void barrier_init_fence() {
    asm volatile("fence.mbarrier_init.release.cluster;\n"
                 "fence.proxy.async;" ::
                     : "memory");
}

__device__ __forceinline__ void barrier_arrive(Barrier* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
                 : "memory");
}

// Arrives, and has the phase wait for that many bytes of copies too.
__device__ __forceinline__ void barrier_arrive_expecting(Barrier* barrier, int bytes) {
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

// Waits for the end of the phase of this parity: 0 for the first one. The phase before the first
// counts as ended.
__device__ __forceinline__ void barrier_wait(Barrier* barrier, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred ended;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 ended, [%0], %1;\n"
                 "@!ended bra again;\n"
                 "}" ::"r"(shared_address(barrier)),
                 "r"(parity)
                 : "memory");
}

// Has one thread copy a box to shared memory, 128 bytes aligned. Its bytes count for the barrier.
__device__ __forceinline__ void copy_box(void* to, const TensorMap& map, const BoxPlace& at,
                                         Barrier* barrier) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(shared_address(to)),
                 "l"(&map), "r"(at.channel), "r"(at.column), "r"(at.row), "r"(at.image),
                 "r"(shared_address(barrier))
                 : "memory");
}

// 8 bytes of shared memory that products read.
__device__ __forceinline__ void load_operand(uint32_t (&to)[2], const void* from) {
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(shared_address(from))
                 : "memory");
}
__device__ __forceinline__ void store_operand(void* to, const uint32_t (&from)[2]) {
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(shared_address(to)), "r"(from[0]),
                 "r"(from[1])
                 : "memory");
}

// After a thread has written memory that products or copies, which use another proxy, read or
// overwrite. A barrier follows before their thread issues them.
__device__ __forceinline__ void proxy_fence() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// A barrier of some warps of the block, with `threads` threads; `number`: 1 to 15.
__device__ __forceinline__ void sync_warps(int number, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// Before the first product, and wherever the thread has written to registers of a product.
__device__ __forceinline__ void products_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Ends a group of products.
__device__ __forceinline__ void products_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Waits until at most kPending of the latest groups are under way. Registers of the others may be
// read and written again.
template <int kPending> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// Keeps the compiler from moving accesses to registers of products across a fence or a wait.
template <int kCount> __device__ __forceinline__ void pin(float (&values)[kCount]) {
#pragma unroll
    for (float& value : values)
        asm volatile("" : "+f"(value)::"memory");
}

// sum [64, N] += a [64, 16] b [16, N], b in shared memory, MN-major. A lane of warp w of the
// warpgroup has rows from 16 w on, in the fragments of mma.m16n8k16 (PTX ISA, "Register
// Fragments").
#define MASKEDCONV_WGMMA(name, shape, registers, operands, ...)                                    \
    __device__ __forceinline__ void name(float (&sum)[registers], const uint32_t (&a)[4],          \
                                         uint64_t b) {                                             \
        asm volatile("{\n"                                                                         \
                     ".reg .pred add;\n"                                                           \
                     "setp.eq.u32 add, 0, 0;\n"                                                    \
                     "wgmma.mma_async.sync.aligned." shape " " operands ", add, 1, 1, 1;\n"        \
                     "}"                                                                           \
                     : __VA_ARGS__                                                                 \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                        \
    }
#define MASKEDCONV_4(i) "+f"(sum[i]), "+f"(sum[i + 1]), "+f"(sum[i + 2]), "+f"(sum[i + 3])
#define MASKEDCONV_N8 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, %8"
#define MASKEDCONV_N24                                                                             \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11}, {%12, %13, %14, %15}, %16"
#define MASKEDCONV_N40                                                                             \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19}, " \
    "{%20, %21, %22, %23}, %24"
#define MASKEDCONV_WGMMAS(name, types)                                                             \
    MASKEDCONV_WGMMA(name, "m64n8k16" types, 4, MASKEDCONV_N8, MASKEDCONV_4(0))                    \
    MASKEDCONV_WGMMA(name, "m64n24k16" types, 12, MASKEDCONV_N24, MASKEDCONV_4(0),                 \
                     MASKEDCONV_4(4), MASKEDCONV_4(8))                                             \
    MASKEDCONV_WGMMA(name, "m64n40k16" types, 20, MASKEDCONV_N40, MASKEDCONV_4(0),                 \
                     MASKEDCONV_4(4), MASKEDCONV_4(8), MASKEDCONV_4(12), MASKEDCONV_4(16))
MASKEDCONV_WGMMAS(wgmma_bfloat16, ".f32.bf16.bf16")
MASKEDCONV_WGMMAS(wgmma_float16, ".f32.f16.f16")
#undef MASKEDCONV_WGMMAS
#undef MASKEDCONV_N40
#undef MASKEDCONV_N24
#undef MASKEDCONV_N8
#undef MASKEDCONV_WGMMA

// sum [64, 64] += a [64, 16] b [16, 64], both in shared memory, MN-major.
#define MASKEDCONV_WGMMA_SHARED(name, types)                                                       \
    __device__ __forceinline__ void name(float (&sum)[32], uint64_t a, uint64_t b) {               \
        asm volatile("{\n"                                                                         \
                     ".reg .pred add;\n"                                                           \
                     "setp.eq.u32 add, 0, 0;\n"                                                    \
                     "wgmma.mma_async.sync.aligned.m64n64k16" types " "                            \
                     "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "     \
                     "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, "      \
                     "%30, %31}, %32, %33, add, 1, 1, 1, 1;\n"                                     \
                     "}"                                                                           \
                     : MASKEDCONV_4(0), MASKEDCONV_4(4), MASKEDCONV_4(8), MASKEDCONV_4(12),        \
                       MASKEDCONV_4(16), MASKEDCONV_4(20), MASKEDCONV_4(24), MASKEDCONV_4(28)      \
                     : "l"(a), "l"(b));                                                            \
    }
MASKEDCONV_WGMMA_SHARED(wgmma_bfloat16, ".f32.bf16.bf16")
MASKEDCONV_WGMMA_SHARED(wgmma_float16, ".f32.f16.f16")
#undef MASKEDCONV_WGMMA_SHARED
#undef MASKEDCONV_4

// A barrier of all threads of the cluster; they then see what the others have written.
__device__ __forceinline__ void cluster_sync() {
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::
                     : "memory");
}

// The value at the same place in the shared memory of block number `rank` of the cluster.
__device__ __forceinline__ float load_from_cluster(const float* here, int rank) {
    float value;
    asm volatile("{\n"
                 ".reg .u32 there;\n"
                 "mapa.shared::cluster.u32 there, %1, %2;\n"
                 "ld.shared::cluster.f32 %0, [there];\n"
                 "}"
                 : "=f"(value)
                 : "r"(shared_address(here)), "r"(rank)
                 : "memory");
    return value;
}

} // namespace maskedconv
#endif
