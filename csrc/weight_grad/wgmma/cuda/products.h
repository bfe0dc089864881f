// A warpgroup's products: 64 channels of x, in registers, times the gradient that its pixels meet,
// in shared memory. Horizontal taps are columns of one product, by the steps of its
// descriptor; a vertical tap is another start. So nothing is copied for a tap.
#pragma once

#include <type_traits>

#include "weight_grad/cuda/fragments.h"
#include "weight_grad/wgmma/cuda/pipeline.h"

namespace maskedconv {
namespace wgmma {

template <typename T, int kCount>
__device__ __forceinline__ void multiply(float (&sum)[kCount], const uint32_t (&x)[4],
                                         uint64_t grad) {
    if constexpr (std::is_same_v<T, __half>)
        wgmma_float16(sum, x, grad);
    else
        wgmma_bfloat16(sum, x, grad);
}

// A thread's place: its lane, its warp in the warpgroup, and its warpgroup in the block.
struct Worker {
    int lane, warp, group;

    __device__ Worker()
        : lane(static_cast<int>(threadIdx.x) % 32), warp(static_cast<int>(threadIdx.x) / 32 % 4),
          group(static_cast<int>(threadIdx.x) / 128) {}
};

// BatchNorm of the two channels of a lane.
struct Affine {
    float scale[2] = {}, shift[2] = {};

    __device__ Affine(bool there, const Arguments& a, const Worker& worker) {
        const WeightGrad& p = a.problem;
        const int first = (blockIdx.y * a.plan.groups + worker.group) * kGroupChannels +
                          row_of(worker.warp, worker.lane, 0);
        for (int i = 0; i < 2; ++i)
            if (there && first + i * 8 < p.channels)
                scale[i] = p.scale[first + i * 8], shift[i] = p.shift[first + i * 8];
    }
};

// Which of a step's 16 pixels are in the image, one bit each: x is 0 for others, relu(bn(0)) is
// not.
__device__ __forceinline__ unsigned pixels_inside(const WeightGrad& p, const Plan& plan,
                                                  const TilePlace& place, int step) {
    const int columns = static_cast<int>(p.input.columns) - place.column;
    const int rows = static_cast<int>(p.input.rows) - place.row - first_row(plan, step);
    const unsigned row = columns < kTileColumns ? (1u << columns) - 1 : 0xffu;
    return (rows > 0 ? row : 0u) | (rows > 1 ? row << 8 : 0u);
}

template <typename T, int kSide, int kFilterBlocks, bool kPrologue> struct Products {
    float sum[kSide][kFilterBlocks][kSide * 4] = {}; // by taps up and 8s of filters

    __device__ __forceinline__ void add_tiles(const Arguments& a, const SharedStages& shared,
                                              const Worker& worker) {
        const Affine affine(kPrologue, a, worker);
        const TileRange range = tiles_of(a.plan, blockIdx.x);
        Turn turn;
        int before = 0; // the stage of the last tile
        uint32_t x[2][4];
        for (int i = 0; i < range.count; ++i, turn.next(a.plan)) {
            barrier_wait(shared.full(turn.stage), turn.parity);
            const TilePlace place = tile_place(a.plan, range.first + i);
#pragma unroll
            for (int step = 0; step < kTilePixels / 16; ++step) {
                load_matrices_transposed(x[step % 2], shared.x(turn.stage, worker.group) +
                                                          x_offset(step, worker.warp, worker.lane));
                if constexpr (kPrologue)
                    Fragments<T>::template normalise<true>(
                        x[step % 2], affine.scale, affine.shift,
                        pixels_inside(a.problem, a.plan, place, step), worker.lane);
                multiply_step(a, shared, turn.stage, step, x[step % 2]);
                // The previous step's products have ended: its x may be overwritten, and after a
                // tile's last step also its stage.
                products_wait<1>();
                if (step == 0 && i > 0 && worker.lane == 0)
                    barrier_arrive(shared.empty(before));
            }
            before = turn.stage;
        }
        products_wait<0>();
        pin_sums();
    }

    // To shared memory, as sum_place numbers them.
    __device__ __forceinline__ void store(const SharedStages& shared, const Worker& worker) const {
        constexpr int kColumns = columns_of(kSide, kFilterBlocks);
        float* to = shared.sums() + worker.group * kColumns * kSumPitch;
#pragma unroll
        for (int block = 0; block < kFilterBlocks; ++block)
#pragma unroll
            for (int up = 0; up < kSide; ++up)
#pragma unroll
                for (int i = 0; i < kSide * 4; ++i) {
                    const int column =
                        (block * kSide + up) * kSide * kFilters + column_of(worker.lane, i);
                    to[column * kSumPitch + row_of(worker.warp, worker.lane, i)] =
                        sum[up][block][i];
                }
    }

  private:
    __device__ __forceinline__ void multiply_step(const Arguments& a, const SharedStages& shared,
                                                  int stage, int step, const uint32_t (&x)[4]) {
        const int dilation_rows = static_cast<int>(a.problem.dilation.rows);
        pin_sums();
        products_fence();
#pragma unroll
        for (int block = 0; block < kFilterBlocks; ++block) {
            const uint32_t halo = shared_address(shared.grad(stage, block));
#pragma unroll
            for (int up = 0; up < kSide; ++up) {
                const MatrixPlace operand = halo_operand(
                    a.plan,
                    halo + static_cast<uint32_t>(halo_offset(a.plan, step, up, dilation_rows)),
                    static_cast<int>(a.problem.dilation.columns));
                multiply<T>(sum[up][block], x, matrix_descriptor(operand));
            }
        }
        products_commit();
    }

    __device__ __forceinline__ void pin_sums() {
#pragma unroll
        for (auto& of_tap : sum)
#pragma unroll
            for (auto& of_block : of_tap)
                pin(of_block);
    }
};

} // namespace wgmma
} // namespace maskedconv
