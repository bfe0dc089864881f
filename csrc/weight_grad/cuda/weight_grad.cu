// weight_grad on CUDA: one matrix product with the input's pixels as its inner dimension.
//
//   sum[channel, (tap, filter)] += x[pixel, channel] * grad_output[pixel shifted by tap, filter]
//
// x is read once; taps, strides and padding only decide where in a small part of grad_output a
// pixel looks. Blocks add up their own tiles of pixels, a second kernel finishes their sums.
#include <initializer_list>

#include "weight_grad/cuda/finish.h"
#include "weight_grad/cuda/fragments.h"
#include "weight_grad/cuda/tiles.h"
#include "weight_grad/cuda/weight_grad_cuda.h"

namespace maskedconv {
namespace {

// What one warp adds up: kM * 16 channels of kColumns columns, over its share of the pixels.
struct Warp {
    int lane, pixel_rank, position;
    int local_channel;               // in the tile of x
    int64_t first_channel;           // of x; of the block: first_channel - local_channel
    int first_column, block_filters; // the first 8 of filters that the block keeps

    __device__ __forceinline__ Warp(const WeightGrad& p, const Plan& plan) {
        const int warp = threadIdx.x / 32, positions = plan.channel_warps * plan.column_warps;
        lane = threadIdx.x % 32;
        pixel_rank = warp / positions;
        position = warp % positions;
        local_channel = position % plan.channel_warps * plan.m_tiles * 16;
        first_channel = int64_t{blockIdx.y} * plan.block_channels() + local_channel;
        const int block_column = blockIdx.z * plan.column_warps * kColumns;
        first_column = block_column + position / plan.channel_warps * kColumns;
        block_filters = block_column / static_cast<int>(p.kernel.rows * p.kernel.columns);
    }
};

// Where the columns of a warp find grad_output, and which of them a step of 16 pixels meets.
struct Columns {
    int shift[kColumns]; // elements from a pixel's halo entry
    uint64_t met;        // bit 16 step + j: column j

    __device__ __forceinline__ Columns(const WeightGrad& p, const Plan& plan, const Warp& warp,
                                       const TilePixel* pixels)
        : met(0) {
        const int width = p.kernel.columns, taps = width * static_cast<int>(p.kernel.rows);
        const int all = static_cast<int>(p.filters + 7) / 8 * taps;
        const bool ordered = plan.phase_rows * plan.phase_columns > 1;
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            const int column = warp.first_column + j, tap = column % taps;
            const int row = tap / width * static_cast<int>(p.dilation.rows);
            const int across = tap % width * static_cast<int>(p.dilation.columns);
            const int down = plan.halo_rows - plan.rows - row;
            const int right = plan.halo_columns - plan.columns - across;
            shift[j] = column >= all ? 0
                                     : (down * plan.halo_columns + right) * plan.grad_pitch() +
                                           (column / taps - warp.block_filters) * 8;
            for (int half = 0; half < 2; ++half) {
                const TilePixel pixel = pixels[half * 32 + warp.lane];
                bool meets = column < all && pixel.image >= 0;
                if (ordered) { // then tiles start at multiples of the stride
                    const int y = pixel.row + static_cast<int>(p.padding.rows) - row;
                    const int x = pixel.column + static_cast<int>(p.padding.columns) - across;
                    meets = meets && y % plan.phase_rows == 0 && x % plan.phase_columns == 0;
                }
                const unsigned lanes = __ballot_sync(kAllLanes, meets);
                const uint32_t bits = (lanes & 0xffffu ? 1u : 0u) | (lanes >> 16 ? 0x10000u : 0u);
                met |= static_cast<uint64_t>(bits << j) << (half * 32);
            }
        }
    }
};

// The prologue's factors of a lane's channels; 0 for channels that are not there.
template <int kM> struct Prologue {
    float scale[kM][2], shift[kM][2];

    __device__ __forceinline__ Prologue(const WeightGrad& p, const Warp& warp) {
        for (int m = 0; m < kM; ++m)
            for (int half = 0; half < 2; ++half) {
                const int64_t channel = warp.first_channel + m * 16 + half * 8 + warp.lane / 4;
                const bool there = p.scale != nullptr && channel < p.channels;
                scale[m][half] = there ? p.scale[channel] : 0.0f;
                shift[m][half] = there ? p.shift[channel] : 0.0f;
            }
    }
};

// Bit k: pixel k of the tile lies in an image. All lanes get all bits.
__device__ uint64_t pixels_inside(const WeightGrad& p, const TileOrigin& origin,
                                  const TilePixel* pixels, int lane) {
    const unsigned low = __ballot_sync(kAllLanes, origin.inside(p, pixels[lane]));
    const unsigned high = __ballot_sync(kAllLanes, origin.inside(p, pixels[lane + 32]));
    return static_cast<uint64_t>(high) << 32 | low;
}

template <typename T, int kM, bool kPrologue>
__device__ __forceinline__ void multiply_tile(const Plan& plan, const SharedTiles<T>& shared,
                                              int stage, const Warp& warp, const Columns& columns,
                                              const Prologue<kM>& prologue, uint64_t inside,
                                              float (&sum)[kM][kColumns][4]) {
    using F = Fragments<T>;
    const T* x_tile = shared.x(stage) + warp.local_channel;
    const T* grad_tile = shared.grad(stage) + F::grad_element(warp.lane);
#pragma unroll 1
    for (int k = warp.pixel_rank * F::kPixels; k < kTilePixels;
         k += plan.pixel_warps * F::kPixels) {
        const unsigned met = static_cast<unsigned>(columns.met >> (k & ~15)) & 0xffffu;
        if (met == 0)
            continue;
        uint32_t x[kM][4], grad[kColumns][2];
        const T* rows[F::kGradRows];
        for (int i = 0; i < F::kGradRows; ++i)
            rows[i] =
                grad_tile + shared.pixels[k + F::grad_pixel(warp.lane, i)].halo * plan.grad_pitch();
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            F::load_x(x[m], x_tile + k * plan.x_pitch() + m * 16, plan.x_pitch(), warp.lane);
            if constexpr (kPrologue)
                F::normalise(x[m], prologue.scale[m], prologue.shift[m],
                             static_cast<unsigned>(inside >> k), warp.lane);
            F::round(x[m]);
        }
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            const T* shifted[F::kGradRows];
            for (int i = 0; i < F::kGradRows; ++i)
                shifted[i] = rows[i] + columns.shift[j];
            F::load_grad(grad[j], shifted);
        }
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
            if (met >> j & 1)
#pragma unroll
                for (int m = 0; m < kM; ++m)
                    F::multiply(sum[m][j], x[m], grad[j]);
    }
}

// Adds the sums of the warps that share a position, in the order of their rank, into rank 0's.
template <int kM>
__device__ __forceinline__ void add_pixel_warps(const Plan& plan, const Warp& warp, float* buffer,
                                                float (&sum)[kM][kColumns][4]) {
    const int lanes = plan.channel_warps * plan.column_warps * 32;
    float* mine = buffer + warp.position * 32 + warp.lane;
#pragma unroll 1
    for (int rank = 1; rank < plan.pixel_warps; ++rank)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
            __syncthreads(); // the buffer's last contents have been read
            if (warp.pixel_rank == rank)
                for (int i = 0; i < kM * 4; ++i)
                    mine[i * lanes] = sum[i / 4][j][i % 4];
            __syncthreads();
            if (warp.pixel_rank == 0)
                for (int i = 0; i < kM * 4; ++i)
                    sum[i / 4][j][i % 4] += mine[i * lanes];
        }
}

template <int kM>
__device__ __forceinline__ void store_sums(const WeightGradArguments& a, const Warp& warp,
                                           const float (&sum)[kM][kColumns][4]) {
    const WeightGrad& p = a.problem;
    const int taps = p.kernel.rows * p.kernel.columns;
    float* out = a.sums + int64_t{blockIdx.x} * p.filters * taps * p.channels;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
        const int column = warp.first_column + j;
        const int64_t filters = column / taps * 8 + warp.lane % 4 * 2;
#pragma unroll
        for (int m = 0; m < kM; ++m)
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const int64_t filter = filters + i % 2;
                const int64_t channel = warp.first_channel + m * 16 + i / 2 * 8 + warp.lane / 4;
                if (filter < p.filters && channel < p.channels)
                    out[(filter * taps + column % taps) * p.channels + channel] = sum[m][j][i];
            }
    }
}

template <typename T, int kM, bool kPrologue>
__global__ void __launch_bounds__(max_warps(kM) * 32)
    weight_grad_kernel(const WeightGradArguments a) {
    const WeightGrad& p = a.problem;
    const Plan& plan = a.plan;
    const SharedTiles<T> shared(plan);
    fill_tables(p, plan, shared);
    __syncthreads();
    const Warp warp(p, plan);
    const Columns columns(p, plan, warp, shared.pixels);
    const Prologue<kM> prologue(p, warp);
    const int64_t first = plan.tiles * blockIdx.x / plan.splits;
    const int64_t end = plan.tiles * (blockIdx.x + 1) / plan.splits;
    const auto load = [&](int64_t tile) {
        if (tile < end) {
            const TileOrigin origin(plan, tile);
            const int stage = static_cast<int>((tile - first) % kStages);
            load_x(a, shared, origin, warp.first_channel - warp.local_channel, stage);
            load_grad(a, shared, origin, int64_t{warp.block_filters} * 8, stage);
        }
        copy_async_commit(); // an empty group too, so that the wait counts tiles
    };
    float sum[kM][kColumns][4] = {};
    for (int64_t tile = first; tile < first + kStages - 1; ++tile)
        load(tile);
    for (int64_t tile = first; tile < end; ++tile) {
        copy_async_wait<kStages - 2>();
        __syncthreads(); // this tile has landed for all, and all are done with the one before
        load(tile + kStages - 1);
        const uint64_t inside =
            kPrologue ? pixels_inside(p, TileOrigin(plan, tile), shared.pixels, warp.lane) : 0;
        multiply_tile<T, kM, kPrologue>(plan, shared, static_cast<int>((tile - first) % kStages),
                                        warp, columns, prologue, inside, sum);
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

// The products, and what follows them.
template <typename T> void launch_kernel(const WeightGradArguments& a, uintptr_t stream) {
    const Plan& plan = a.plan;
    const dim3 grid(plan.splits, plan.channel_blocks, plan.column_blocks);
    const bool prologue = a.problem.scale != nullptr;
    auto* kernel = &weight_grad_kernel<T, 4, false>;
    if (plan.m_tiles == 4 && prologue)
        kernel = &weight_grad_kernel<T, 4, true>;
    if (plan.m_tiles == 2)
        kernel = prologue ? &weight_grad_kernel<T, 2, true> : &weight_grad_kernel<T, 2, false>;
    launch("weight_grad", kernel, grid, plan.threads(), plan.shared_bytes, stream, a);
    const WeightGrad& p = a.problem;
    const int64_t elements = p.filters * p.kernel.rows * p.kernel.columns * p.channels;
    constexpr int kThreads = 256;
    const dim3 blocks(static_cast<unsigned>(ceil_div(elements, kThreads)));
    launch("weight_grad", &finish_kernel<T>, blocks, kThreads, 0, stream,
           FinishArguments{p, a.sums, elements, plan.splits});
}

} // namespace

int weight_grad_cuda_splits(const WeightGrad& problem, ElementType type, const CudaLimits& limits) {
    return plan_weight_grad(problem, type, limits.multiprocessors, limits.shared_bytes).splits;
}

void weight_grad_cuda(const WeightGrad& p, ElementType type, const CudaLimits& limits,
                      float* workspace, uintptr_t stream) {
    WeightGradArguments a{p, {}, 0, 0, p.out};
    a.plan = plan_weight_grad(p, type, limits.multiprocessors, limits.shared_bytes);
    if (a.plan.splits == 0)
        throw std::runtime_error("weight_grad: no room in shared memory for this problem");
    const int element = element_bytes(type);
    a.x_bytes = copy_bytes(p.x, {p.x_image, p.x_row, p.x_pixel}, element);
    a.grad_bytes =
        p.grad_channel != 1
            ? element
            : copy_bytes(p.grad_output, {p.grad_image, p.grad_row, p.grad_pixel}, element);
    if (a.plan.splits > 1)
        a.sums = workspace;
    if (type == ElementType::float32)
        launch_kernel<float>(a, stream);
    else if (type == ElementType::bfloat16)
        launch_kernel<__nv_bfloat16>(a, stream);
    else
        launch_kernel<__half>(a, stream);
}

} // namespace maskedconv
