// weight_grad by TMA and wgmma, the same matrix product as weight_grad/cuda/weight_grad.cu:
//
//   sum[channel, (tap, filter)] += x[pixel, channel] * grad_output[pixel shifted by tap, filter]
//
// One warp has tiles of x and of the gradient copied, zeros around the images included; one to
// three warpgroups multiply 64 channels each (products.h), or, for many filters, 64 filters by 64
// channels for one row of the kernel each (swapped.h). Not confirmed on a GPU: tests check the
// arithmetic of its layouts, and run it as the PTX ISA documents the instructions
// (common/emulation/hopper.h).
#include "weight_grad/wgmma/cuda/products.h"
#include "weight_grad/wgmma/cuda/reduction.h"
#include "weight_grad/wgmma/cuda/swapped.h"
#include "weight_grad/wgmma/cuda/weight_grad_wgmma.h"

namespace maskedconv {
namespace wgmma {
namespace {

template <typename T, int kSide, int kFilterBlocks, bool kPrologue>
__global__ void __launch_bounds__(most_threads(kSide, kFilterBlocks))
    weight_grad_wgmma_kernel(const __grid_constant__ Arguments a) {
#if defined(MASKEDCONV_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    const SharedStages shared(a.plan);
    const Worker worker;
    make_barriers(shared);
    const bool multiplies = worker.group < a.plan.warpgroups;
    Products<T, kSide, kFilterBlocks, kPrologue> products;
    if (multiplies)
        products.add_tiles(a, shared, worker);
    else if (worker.lane == 0)
        copy_tiles(a, shared);
    __syncthreads(); // all are done with the stages, which the sums overwrite
    if (multiplies)
        products.store(shared, worker);
    add_blocks<T, kSide, kFilterBlocks>(a, shared);
#endif
}

using Kernel = void (*)(Arguments);

template <typename T, int kSide, int kFilterBlocks> Kernel kernel_of(bool prologue) {
    return prologue ? &weight_grad_wgmma_kernel<T, kSide, kFilterBlocks, true>
                    : &weight_grad_wgmma_kernel<T, kSide, kFilterBlocks, false>;
}

template <typename T, int kSide> Kernel kernel_of(int filter_blocks, bool prologue) {
    if constexpr (can_swap(kSide))
        if (is_swapped(filter_blocks))
            return kernel_of<T, kSide, kSwappedBlocks>(prologue);
    if constexpr (most_filter_blocks(kSide) > 1) {
        if (filter_blocks == 4)
            return kernel_of<T, kSide, 4>(prologue);
        if (filter_blocks == 2)
            return kernel_of<T, kSide, 2>(prologue);
    }
    return kernel_of<T, kSide, 1>(prologue);
}

template <typename T> Kernel kernel_of(int64_t side, int filter_blocks, bool prologue) {
    if (side == 5)
        return kernel_of<T, 5>(filter_blocks, prologue);
    return side == 3 ? kernel_of<T, 3>(filter_blocks, prologue)
                     : kernel_of<T, 1>(filter_blocks, prologue);
}

} // namespace
} // namespace wgmma

const char* weight_grad_wgmma_sizes_refusal(const WeightGrad& sizes, ElementType type,
                                            const CudaLimits& limits) {
    return wgmma::sizes_refusal(sizes, type, limits);
}

const char* weight_grad_wgmma_refusal(const WeightGrad& p, ElementType type,
                                      const CudaLimits& limits) {
    const char* sizes = wgmma::sizes_refusal(p, type, limits);
    return *sizes ? sizes : wgmma::layout_refusal(p, limits);
}

WgmmaWorkspace weight_grad_wgmma_workspace(const WeightGrad& sizes, const CudaLimits& limits) {
    const wgmma::Plan plan = wgmma::make_plan(sizes, limits);
    if (plan.clusters == 1)
        return {0, 0};
    return {int64_t{plan.clusters} * plan.positions() * wgmma::sums_of(sizes, plan),
            int64_t{plan.positions()} * plan.cluster};
}

void weight_grad_wgmma(const WeightGrad& p, ElementType type, const CudaLimits& limits,
                       float* floats, unsigned* counters, uintptr_t stream) {
    using namespace wgmma;
    if (const char* refusal = weight_grad_wgmma_refusal(p, type, limits); *refusal)
        throw std::runtime_error(std::string("weight_grad_wgmma: ") + refusal);
    Arguments arguments{};
    const wgmma::Plan plan = make_plan(p, limits);
    arguments.x =
        encode_tensor_map(tensor_map_arguments(x_images(p), x_box(plan), Swizzle::bytes128));
    arguments.grad =
        encode_tensor_map(tensor_map_arguments(grad_images(p), grad_box(plan), Swizzle::none));
    arguments.problem = p, arguments.plan = plan;
    arguments.partials = floats, arguments.counters = counters;
    const bool prologue = p.scale != nullptr;
    const Kernel kernel =
        type == ElementType::bfloat16
            ? kernel_of<__nv_bfloat16>(p.kernel.rows, plan.filter_blocks, prologue)
            : kernel_of<__half>(p.kernel.rows, plan.filter_blocks, prologue);
    const dim3 grid(plan.cluster * plan.clusters, plan.channel_blocks, plan.filter_groups);
    if (plan.clusters > 1)
        set_to_zero("weight_grad_wgmma", counters,
                    weight_grad_wgmma_workspace(p, limits).counters * int64_t{sizeof(unsigned)},
                    stream);
    launch_clusters("weight_grad_wgmma", kernel,
                    {grid, plan.cluster, threads_of(plan.warpgroups), plan.shared_bytes, stream},
                    arguments);
}

} // namespace maskedconv
