// weight_grad's products: the sums of a warp, and how it adds up its share of a tile.
#pragma once

#include "weight_grad/cuda/fragments.h"
#include "weight_grad/cuda/tiles.h"

namespace maskedconv {

// Sums of one warp: kM * 16 channels of kColumns columns, over its share of the pixels.
struct Warp {
    int lane, pixel_rank, position;
    int local_channel;               // in the tile of x
    int first_channel;               // of x; of the block: first_channel - local_channel
    int first_column, block_filters; // the first 8 of filters that the block keeps

    __device__ __forceinline__ explicit Warp(const Plan& plan) {
        const int warp = threadIdx.x / 32;
        lane = threadIdx.x % 32;
        pixel_rank = plan.positions.quotient(warp);
        position = plan.positions.remainder(warp);
        const int down = plan.channel_positions.quotient(position);
        local_channel = plan.channel_positions.remainder(position) * plan.m_tiles * 16;
        first_channel = static_cast<int>(blockIdx.y) * plan.block_channels() + local_channel;
        const int block_column = static_cast<int>(blockIdx.z) * plan.column_warps * kColumns;
        first_column = block_column + down * kColumns;
        block_filters = plan.taps.quotient(block_column);
    }
};

// Offsets of a warp's columns in grad_output, and the columns that each step of 16 pixels meets.
template <typename T, bool kFull> struct Columns {
    using F = Fragments<T>;
    int shift[F::kShifts]; // bytes from a pixel's halo entry, of the columns this lane points to
    uint64_t met;          // bit 16 step + j: column j; unused if kFull: each step meets all

    __device__ __forceinline__ Columns(const WeightGradArguments& a, const Warp& warp,
                                       const TilePixel* pixels)
        : met(0) {
#pragma unroll
        for (int s = 0; s < F::kShifts; ++s) {
            const Place place(a, warp.first_column + F::column(warp.lane, s));
            const int halo = place.down * a.plan.halo_columns + place.right;
            const int filter = (place.filters - warp.block_filters) * 8;
            const int elements = halo * a.plan.grad_pitch() + filter;
            shift[s] = place.there ? elements * static_cast<int>(sizeof(T)) : 0;
            keep(shift[s]);
        }
        if constexpr (!kFull)
            for (int j = 0; j < kColumns; ++j)
                meet(a, Place(a, warp.first_column + j), pixels, warp.lane, j);
    }

  private:
    struct Place {
        int filters, down, right; // 8s of filters; from the last tap
        bool there;

        __device__ __forceinline__ Place(const WeightGradArguments& a, int column) {
            const WeightGrad& p = a.problem;
            filters = a.plan.taps.quotient(column);
            const int tap = a.plan.taps.remainder(column);
            const int row = a.plan.taps_across.quotient(tap);
            const int across = a.plan.taps_across.remainder(tap);
            down = static_cast<int>(p.kernel.rows - 1 - row) * static_cast<int>(p.dilation.rows);
            right = static_cast<int>(p.kernel.columns - 1 - across) *
                    static_cast<int>(p.dilation.columns);
            there = filters * 8 < static_cast<int>(p.filters);
        }
    };

    __device__ __forceinline__ void meet(const WeightGradArguments& a, const Place& place,
                                         const TilePixel* pixels, int lane, int j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint32_t pixel = pixels[half * 32 + lane].place;
            bool meets = place.there && pixel != kUnused;
            if (a.plan.ordered()) {
                const int y = place_row(pixel) + a.rest_rows + place.down;
                const int x = place_column(pixel) + a.rest_columns + place.right;
                meets = meets && a.plan.stride_rows.remainder(y) == 0 &&
                        a.plan.stride_columns.remainder(x) == 0;
            }
            const unsigned lanes = __ballot_sync(kAllLanes, meets);
            const uint32_t bits = (lanes & 0xffffu ? 1u : 0u) | (lanes >> 16 ? 0x10000u : 0u);
            met |= static_cast<uint64_t>(bits << j) << (half * 32);
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
__device__ __forceinline__ uint64_t pixels_inside(uint32_t limit, const TilePixel* pixels,
                                                  int lane) {
    const unsigned low = __ballot_sync(kAllLanes, inside(limit, pixels[lane].place));
    const unsigned high = __ballot_sync(kAllLanes, inside(limit, pixels[lane + 32].place));
    return static_cast<uint64_t>(high) << 32 | low;
}

// Adds up this warp's share of a tile. kMask: some of its pixels are not `inside`, and the prologue
// would make them other than 0.
template <typename T, int kM, bool kPrologue, bool kFull, bool kMask>
__device__ __forceinline__ void
multiply_tile(const Plan& plan, const SharedTiles<T>& shared, int stage, const Warp& warp,
              const Columns<T, kFull>& columns, const Prologue<kM>& prologue, uint64_t inside,
              float (&sum)[kM][kColumns][4]) {
    using F = Fragments<T>;
    const int first = warp.pixel_rank * F::kPixels, step = plan.pixel_warps * F::kPixels;
    const int pitch = plan.x_pitch();
    const T* x_tile =
        shared.x(stage) + warp.local_channel + first * pitch + F::x_element(pitch, warp.lane);
    const T* grad_tile = shared.grad(stage) + F::grad_element(warp.lane);
    const TilePixel* pixel = shared.pixels + first + F::grad_pixel(warp.lane, 0);
#pragma unroll 1
    for (int k = first; k < kTilePixels; k += step, x_tile += step * pitch, pixel += step) {
        constexpr unsigned kAll = (1u << kColumns) - 1;
        const unsigned met = kFull ? kAll : static_cast<unsigned>(columns.met >> (k & ~15)) & kAll;
        if (met == 0)
            continue;
        uint32_t x[kM][4], grad[kColumns][2];
        const T* rows[F::kGradRows];
        for (int i = 0; i < F::kGradRows; ++i)
            rows[i] = bytes_behind(grad_tile, pixel[F::grad_pixel(0, i)].halo);
#pragma unroll
        for (int m = 0; m < kM; ++m) {
            F::load_x(x[m], x_tile + m * 16, pitch);
            if constexpr (kPrologue)
                F::template normalise<kMask>(x[m], prologue.scale[m], prologue.shift[m],
                                             static_cast<unsigned>(inside >> k), warp.lane);
            F::round(x[m]);
        }
        F::load_grad(grad, rows, columns.shift, met);
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
            if (met >> j & 1)
#pragma unroll
                for (int m = 0; m < kM; ++m)
                    F::multiply(sum[m][j], x[m], grad[j]);
    }
}

} // namespace maskedconv
