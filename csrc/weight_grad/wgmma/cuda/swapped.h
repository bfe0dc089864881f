// The same products with the roles swapped, for many filters: 64 filters of the gradient times 64
// channels of x, both in shared memory. A tap is another start of the gradient's operand. Each
// warpgroup has 64 channels and one row of the kernel. BatchNorm and ReLU are computed in the tile
// of x, before the products.
#pragma once

#include "weight_grad/wgmma/cuda/products.h"

namespace maskedconv {
namespace wgmma {

template <typename T>
__device__ __forceinline__ void multiply(float (&sum)[32], uint64_t grad, uint64_t x) {
    if constexpr (std::is_same_v<T, __half>)
        wgmma_float16(sum, grad, x);
    else
        wgmma_bfloat16(sum, grad, x);
}

// A warpgroup's 64 channels of the block, and its row of the kernel, counted from the last.
template <int kSide> struct Share {
    int channels, up;

    __device__ explicit Share(const Worker& worker)
        : channels(worker.group / kSide), up(worker.group % kSide) {}
};

// BatchNorm and ReLU of 64 channels of a tile, by the warpgroups that multiply them: a thread has
// 4 channels of some pixels, all in one column.
template <typename T, int kSide> struct Normalised {
    static constexpr int kThreads = kSide * 128, kLanes = kGroupChannels / 4; // of a pixel
    float scale[4], shift[4];
    int barrier, channel, first_pixel;

    __device__ Normalised(const Arguments& a, const Worker& worker) {
        const WeightGrad& p = a.problem;
        const Share<kSide> share(worker);
        const int thread = (share.up * 4 + worker.warp) * 32 + worker.lane;
        barrier = share.channels + 1, channel = thread % kLanes * 4, first_pixel = thread / kLanes;
        const int first = (blockIdx.y * a.plan.groups + share.channels) * kGroupChannels + channel;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const bool there = first + i < p.channels;
            scale[i] = there ? p.scale[first + i] : 0.0f;
            shift[i] = there ? p.shift[first + i] : 0.0f;
        }
    }

    // Called by all threads before the products, when `x` has arrived.
    __device__ __forceinline__ void compute(const Arguments& a, unsigned char* x,
                                            const TilePlace& place) const {
        const bool column_inside =
            place.column + first_pixel % kTileColumns < a.problem.input.columns;
#pragma unroll 1
        for (int pixel = first_pixel; pixel < kTilePixels; pixel += kThreads / kLanes) {
            const int row = place.row + (pixel / kTileColumns & (a.plan.rows - 1));
            compute_channels(x + channel_offset(pixel, channel),
                             column_inside && row < a.problem.input.rows);
        }
        proxy_fence();
        sync_warps(barrier, kThreads);
    }

  private:
    // x is 0 for pixels outside of the image, relu(bn(0)) is not.
    __device__ __forceinline__ void compute_channels(unsigned char* channels, bool inside) const {
        uint32_t x[2];
        load_operand(x, channels);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float2 two = unpack<T>(x[i]);
            const uint32_t activation =
                pack_relu<T>(fmaf(two.x, scale[i * 2], shift[i * 2]),
                             fmaf(two.y, scale[i * 2 + 1], shift[i * 2 + 1]));
            x[i] = inside ? activation : 0u;
        }
        store_operand(channels, x);
    }
};

template <typename T, int kSide> struct NotNormalised {
    __device__ NotNormalised(const Arguments&, const Worker&) {}
    __device__ __forceinline__ void compute(const Arguments&, unsigned char*,
                                            const TilePlace&) const {}
};

template <typename T, int kSide, bool kPrologue>
struct Products<T, kSide, kSwappedBlocks, kPrologue> {
    float sum[kSide][32] = {}; // by taps left

    __device__ __forceinline__ void add_tiles(const Arguments& a, const SharedStages& shared,
                                              const Worker& worker) {
        const std::conditional_t<kPrologue, Normalised<T, kSide>, NotNormalised<T, kSide>> prologue(
            a, worker);
        const Share<kSide> share(worker);
        const TileRange range = tiles_of(a.plan, blockIdx.x);
        Turn turn;
        int before = 0; // the stage of the last tile
        for (int i = 0; i < range.count; ++i, turn.next(a.plan)) {
            unsigned char* x = shared.x(turn.stage, share.channels);
            barrier_wait(shared.full(turn.stage), turn.parity);
            prologue.compute(a, x, tile_place(a.plan, range.first + i)); // beside older products
            multiply_tile(a, shared_address(shared.grad(turn.stage, 0)), shared_address(x),
                          share.up);
            products_wait<1>(); // the previous tile's have ended
            if (i > 0 && worker.lane == 0)
                barrier_arrive(shared.empty(before));
            before = turn.stage;
        }
        products_wait<0>();
        pin_sums();
    }

    // To shared memory, as sum_place numbers them.
    __device__ __forceinline__ void store(const SharedStages& shared, const Worker& worker) const {
        const Share<kSide> share(worker);
        const int row_of_taps = share.channels * kSide + share.up;
#pragma unroll
        for (int left = 0; left < kSide; ++left)
#pragma unroll
            for (int i = 0; i < 32; ++i) {
                const int filter = row_of(worker.warp, worker.lane, i);
                const int line = (row_of_taps * kSide + left) * kSwappedFilters + filter;
                shared.sums()[line * kSumPitch + column_of(worker.lane, i)] = sum[left][i];
            }
    }

  private:
    __device__ __forceinline__ void multiply_tile(const Arguments& a, uint32_t grad, uint32_t x,
                                                  int up) {
        const int dilation_rows = static_cast<int>(a.problem.dilation.rows);
        const int dilation_columns = static_cast<int>(a.problem.dilation.columns);
        pin_sums();
        products_fence();
#pragma unroll
        for (int step = 0; step < kTilePixels / 16; ++step) {
            const uint64_t channels = swizzled_descriptor(channels_operand(x, step));
            const uint32_t last_tap =
                grad + static_cast<uint32_t>(halo_offset(a.plan, step, up, dilation_rows));
#pragma unroll
            for (int left = 0; left < kSide; ++left) {
                const uint32_t start =
                    last_tap + static_cast<uint32_t>(tap_offset(left, dilation_columns));
                multiply<T>(sum[left], matrix_descriptor(filters_operand(a.plan, start)), channels);
            }
        }
        products_commit();
    }

    __device__ __forceinline__ void pin_sums() {
#pragma unroll
        for (auto& of_tap : sum)
            pin(of_tap);
    }
};

} // namespace wgmma
} // namespace maskedconv
