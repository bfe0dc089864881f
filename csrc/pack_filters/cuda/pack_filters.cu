// pack_filters on CUDA: one launch, one thread an element of the bank, in the bank's memory order.
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "common/cuda/device.h"
#include "pack_filters/cuda/pack_filters_cuda.h"

namespace maskedconv {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 4096;

template <typename To> __device__ To convert(float value);
template <> __device__ __nv_bfloat16 convert(float value) { return __float2bfloat16_rn(value); }
template <> __device__ __half convert(float value) { return __float2half_rn(value); }
template <> __device__ float convert(float value) { return value; }

// `order` lists the bank's dimensions from the fastest to the slowest in memory.
struct PackArguments {
    FilterBank bank;
    FilterPart learned;
    FilterPart frozen;
    int order[4];
    int slice_dim;
    int64_t elements;
};

template <typename To> __global__ void pack_filters_kernel(const PackArguments a) {
    const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < a.elements;
         i += step) {
        int64_t index[4];
        int64_t rest = i, to = 0;
        for (int k = 0; k < 4; ++k) {
            const int dim = a.order[k];
            index[dim] = rest % a.bank.shape[dim];
            rest /= a.bank.shape[dim];
            to += index[dim] * a.bank.strides[dim];
        }
        const FilterPart& part = index[a.slice_dim] < a.learned.end ? a.learned : a.frozen;
        index[a.slice_dim] -= part.begin;
        int64_t from = 0;
        for (int dim = 0; dim < 4; ++dim)
            from += index[dim] * part.strides[dim];
        static_cast<To*>(a.bank.data)[to] = convert<To>(static_cast<const float*>(part.data)[from]);
    }
}

} // namespace

void pack_filters_cuda(const FilterBank& bank, const FilterPart& learned, const FilterPart& frozen,
                       int slice_dim, ElementType type, uintptr_t stream) {
    PackArguments a{bank, learned, frozen, {0, 1, 2, 3}, slice_dim, 1};
    std::stable_sort(a.order, a.order + 4,
                     [&](int x, int y) { return bank.strides[x] < bank.strides[y]; });
    for (const int64_t size : bank.shape)
        a.elements *= size;
    if (a.elements == 0)
        return;
    const int64_t blocks = std::min((a.elements + kThreads - 1) / kThreads, kMaxBlocks);
    const dim3 grid(static_cast<unsigned>(blocks));
    auto* kernel = &pack_filters_kernel<float>;
    if (type == ElementType::bfloat16)
        kernel = &pack_filters_kernel<__nv_bfloat16>;
    else if (type == ElementType::float16)
        kernel = &pack_filters_kernel<__half>;
    launch("pack_filters", kernel, grid, kThreads, 0, stream, a);
}

} // namespace maskedconv
