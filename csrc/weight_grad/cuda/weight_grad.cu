// weight_grad on CUDA: one matrix product with the input's pixels as its inner dimension.
//
//   sum[channel, (tap, filter)] += x[pixel, channel] * grad_output[pixel shifted by tap, filter]
//
// x is read once; taps, strides and padding only determine which pixels of a small part of
// grad_output a pixel meets. Blocks add up their own tiles of pixels, a second kernel finishes
// their sums.
#include <initializer_list>

#include "weight_grad/cuda/copies.h"
#include "weight_grad/cuda/finish.h"
#include "weight_grad/cuda/products.h"
#include "weight_grad/cuda/weight_grad_cuda.h"

namespace maskedconv {
namespace {

// Adds the sums of the warps that share a position, in the order of their rank, into rank 0's.
template <int kM>
__device__ __forceinline__ void add_pixel_warps(const Plan& plan, const Warp& warp, float* buffer,
                                                float (&sum)[kM][kColumns][4]) {
    const int lanes = plan.positions.value() * 32;
    int mine = warp.position * 32 + warp.lane;
#pragma unroll 1
    for (int rank = 1; rank < plan.pixel_warps; ++rank) {
        __syncthreads(); // the buffer's last contents have been read
        if (warp.pixel_rank == rank)
#pragma unroll
            for (int i = 0; i < kM * kColumns * 4; ++i)
                buffer[mine + i * lanes] = sum[i / 4 % kM][i / 4 / kM][i % 4];
        __syncthreads();
        if (warp.pixel_rank == 0)
#pragma unroll
            for (int j = 0; j < kColumns; ++j) {
                keep(mine); // or all would be read at once, into registers that are not there
                for (int i = 0; i < kM * 4; ++i)
                    sum[i / 4][j][i % 4] += buffer[mine + (j * kM * 4 + i) * lanes];
            }
    }
}

template <int kM>
__device__ __forceinline__ void store_sums(const WeightGradArguments& a, const Warp& warp,
                                           const float (&sum)[kM][kColumns][4]) {
    const int channels = static_cast<int>(a.problem.channels);
    const int filters = static_cast<int>(a.problem.filters), taps = a.plan.taps.value();
    const int64_t filter_step = int64_t{taps} * channels;
    int tap = a.plan.taps.remainder(warp.first_column);
    int filter = a.plan.taps.quotient(warp.first_column) * 8 + warp.lane % 4 * 2;
    const int channel = warp.first_channel + warp.lane / 4;
    float* out = a.sums + (int64_t{blockIdx.x} * filters + filter) * filter_step +
                 int64_t{tap} * channels + channel;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd)
            if (filter + odd < filters)
#pragma unroll
                for (int eight = 0; eight < kM * 2; ++eight)
                    if (channel + eight * 8 < channels)
                        out[odd * filter_step + eight * 8] = sum[eight / 2][j][eight % 2 * 2 + odd];
        out += channels;
        if (++tap == taps)
            tap = 0, filter += 8, out += 7 * filter_step;
    }
}

__device__ __forceinline__ int next_stage(int stage) {
    return stage == kStages - 1 ? 0 : stage + 1;
}

// kFast: x and grad_output are copied by 16 bytes, which the channels of x fill; the stride is 1;
// and all columns of each warp exist.
template <typename T, int kM, bool kPrologue, bool kFast>
__global__ void __launch_bounds__(max_warps(kM) * 32)
    weight_grad_kernel(const WeightGradArguments a) {
    const WeightGrad& p = a.problem;
    const Plan& plan = a.plan;
    const SharedTiles<T> shared(plan);
    fill_tables(a, shared);
    __syncthreads();
    const Warp warp(plan);
    const Columns<T, kFast> columns(a, warp, shared.pixels);
    const Prologue<kM> prologue(p, warp);
    const Column x_column(a.x), grad_column(a.grad);
    const int block_channel = warp.first_channel - warp.local_channel;
    const int block_filter = warp.block_filters * 8, split = blockIdx.x;
    const int longer = split < plan.longer_splits ? split : plan.longer_splits;
    TileWalk walk(a, static_cast<const T*>(p.x) + block_channel,
                  static_cast<const T*>(p.grad_output) + block_filter * p.grad_channel,
                  split * plan.tiles_per_split + longer);
    const int tiles = plan.tiles_per_split + (split < plan.longer_splits);
    int loaded = 0, load_stage = 0, stage = 0;
    uint32_t limits[kStages] = {}; // of the tiles loaded last
    const auto load_next = [&] {
#pragma unroll
        for (int i = 0; i + 1 < kStages; ++i)
            limits[i] = limits[i + 1];
        limits[kStages - 1] = walk.limit(p);
        if (loaded < tiles) {
            if constexpr (kFast) {
                load_x<T, 16, true>(a, shared, walk, x_column, block_channel, load_stage);
                load_grad<T, 16, true>(a, shared, walk, grad_column, block_filter, load_stage);
            } else {
                load_any(a, shared, walk, x_column, grad_column, block_channel, block_filter,
                         load_stage);
            }
            walk.next(a);
        }
        ++loaded, load_stage = next_stage(load_stage);
        copy_async_commit(); // an empty group too, so that the wait counts tiles
    };
    float sum[kM][kColumns][4] = {};
    while (loaded < kStages - 1)
        load_next();
    for (int tile = 0; tile < tiles; ++tile, stage = next_stage(stage)) {
        copy_async_wait<kStages - 2>();
        __syncthreads(); // this tile has landed for all, and all are done with the one before
        load_next();
        const uint64_t inside = kPrologue ? pixels_inside(limits[0], shared.pixels, warp.lane) : 0;
        // The general case always masks: both would take more registers than there are.
        if (kPrologue && (!kFast || inside != ~uint64_t{0}))
            multiply_tile<T, kM, kPrologue, kFast, true>(plan, shared, stage, warp, columns,
                                                         prologue, inside, sum);
        else
            multiply_tile<T, kM, kPrologue, kFast, false>(plan, shared, stage, warp, columns,
                                                          prologue, inside, sum);
    }
    add_pixel_warps(plan, warp, reinterpret_cast<float*>(shared.stages), sum);
    if (warp.pixel_rank == 0)
        store_sums(a, warp, sum);
}

// The widest copy that all of these are multiples of: 16, 8 or 4 bytes, or one element.
int copy_bytes(const void* data, std::initializer_list<int64_t> strides, int element) {
    int64_t bits = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data));
    for (const int64_t stride : strides)
        bits |= stride * element;
    for (const int bytes : {16, 8, 4})
        if (bits % bytes == 0 && bytes >= element)
            return bytes;
    return element;
}

// `items` elements of each pixel, by so many threads; `bytes` at once.
Copies make_copies(int bytes, int element, int items, int threads) {
    Copies copies{};
    copies.bytes = bytes;
    copies.chunks = items * element / bytes;
    copies.width = Divisor(std::min(copies.chunks, threads));
    copies.rows = threads / copies.width.value();
    return copies;
}

void set_steps(const WeightGradArguments& a, Copies& copies, int64_t image, int64_t row,
               int64_t column, int element) {
    const Plan& plan = a.plan;
    const int64_t across = (plan.column_tiles.value() - 1) * column;
    copies.next_column = column * element;
    copies.next_row = (row - across) * element;
    copies.next_images =
        (plan.images * image - (plan.row_tiles.value() - 1) * row - across) * element;
}

WeightGradArguments make_arguments(const WeightGrad& p, const Plan& plan, int element,
                                   float* sums) {
    WeightGradArguments a{};
    a.problem = p, a.plan = plan, a.sums = sums;
    const int x_bytes = copy_bytes(p.x, {p.x_image, p.x_row, p.x_pixel}, element);
    const int grad_bytes =
        p.grad_channel != 1
            ? element
            : copy_bytes(p.grad_output, {p.grad_image, p.grad_row, p.grad_pixel}, element);
    a.x = make_copies(x_bytes, element, plan.block_channels(), plan.threads());
    a.grad = make_copies(grad_bytes, element, plan.grad_blocks * 8, plan.threads());
    set_steps(a, a.x, p.x_image, plan.rows * p.x_row, plan.columns * p.x_pixel, element);
    const Pair step = plan.ordered() ? p.stride : Pair{1, 1};
    const int64_t top = p.padding.rows - (p.kernel.rows - 1) * p.dilation.rows;
    const int64_t left = p.padding.columns - (p.kernel.columns - 1) * p.dilation.columns;
    a.out_row = floor_div(top, step.rows), a.out_column = floor_div(left, step.columns);
    a.rest_rows = top - a.out_row * step.rows, a.rest_columns = left - a.out_column * step.columns;
    a.out_rows = plan.rows / step.rows, a.out_columns = plan.columns / step.columns;
    const int64_t ordered = plan.ordered();
    set_steps(a, a.grad, p.grad_image, ordered * a.out_rows * p.grad_row,
              ordered * a.out_columns * p.grad_pixel, element);
    return a;
}

// See weight_grad_kernel.
bool is_fast(const WeightGradArguments& a, int element) {
    const WeightGrad& p = a.problem;
    return a.x.bytes == 16 && a.grad.bytes == 16 && p.channels * element % 16 == 0 &&
           p.stride.rows == 1 && p.stride.columns == 1 &&
           ceil_div(p.filters, 8) * a.plan.taps.value() % kColumns == 0;
}

template <typename T, int kM, bool kPrologue>
void launch_products(const WeightGradArguments& a, uintptr_t stream) {
    const Plan& plan = a.plan;
    const dim3 grid(plan.splits, plan.channel_blocks, plan.column_blocks);
    auto* kernel = is_fast(a, sizeof(T)) ? &weight_grad_kernel<T, kM, kPrologue, true>
                                         : &weight_grad_kernel<T, kM, kPrologue, false>;
    launch("weight_grad", kernel, grid, plan.threads(), plan.shared_bytes, stream, a);
}

template <typename T>
void launch_kernels(const WeightGrad& p, const Plan& plan, float* workspace, uintptr_t stream) {
    const WeightGradArguments a =
        make_arguments(p, plan, sizeof(T), plan.splits > 1 ? workspace : p.out);
    const bool prologue = p.scale != nullptr;
    if (plan.m_tiles == 2)
        prologue ? launch_products<T, 2, true>(a, stream) : launch_products<T, 2, false>(a, stream);
    else
        prologue ? launch_products<T, 4, true>(a, stream) : launch_products<T, 4, false>(a, stream);
    const int64_t elements = p.filters * p.kernel.rows * p.kernel.columns * p.channels;
    const int groups = finish_groups(plan.splits);
    const dim3 blocks(static_cast<unsigned>(ceil_div(elements, kFinishThreads / groups)));
    launch("weight_grad", &finish_kernel<T>, blocks, kFinishThreads, kFinishThreads * 4, stream,
           FinishArguments{p, a.sums, elements, plan.splits, groups});
}

} // namespace

int weight_grad_cuda_splits(const WeightGrad& problem, ElementType type, const CudaLimits& limits) {
    return plan_weight_grad(problem, type, limits.multiprocessors, limits.shared_bytes).splits;
}

void weight_grad_cuda(const WeightGrad& p, ElementType type, const CudaLimits& limits,
                      float* workspace, uintptr_t stream) {
    const Plan plan = plan_weight_grad(p, type, limits.multiprocessors, limits.shared_bytes);
    if (plan.splits == 0)
        throw std::runtime_error(
            "weight_grad: the problem does not fit into shared memory or into a grid");
    for_element(
        type, [&](auto element) { launch_kernels<decltype(element)>(p, plan, workspace, stream); });
}

} // namespace maskedconv
