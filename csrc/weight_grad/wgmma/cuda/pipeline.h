// Tiles on their way through shared memory: one thread has them copied, warpgroups release them.
#pragma once

#include "common/cuda/hopper.h"
#include "weight_grad/wgmma/cuda/places.h"

namespace maskedconv {
namespace wgmma {

// Arguments of the kernel.
struct Arguments {
    TensorMap x, grad;
    WeightGrad problem;
    Plan plan;
    float* partials;    // [clusters, positions, sums of a block]; none for one cluster
    unsigned* counters; // [positions, blocks of a cluster], zeros before
};

// Shared memory of a block: stages, later overwritten by its sums, and barriers.
struct SharedStages {
    const Plan& plan;
    unsigned char* memory;

    __device__ explicit SharedStages(const Plan& plan) : plan(plan), memory(swizzled_memory()) {}

    __device__ unsigned char* x(int stage, int group) const {
        return memory + stage * plan.stage_bytes + group * kXBytes;
    }
    __device__ unsigned char* grad(int stage, int filter_block) const {
        return x(stage, plan.groups) + filter_block * plan.halo_bytes;
    }
    // full: a tile has arrived; empty: all warps have released it.
    __device__ Barrier* full(int stage) const {
        return reinterpret_cast<Barrier*>(memory + plan.barriers) + stage;
    }
    __device__ Barrier* empty(int stage) const { return full(stage) + kMostStages; }
    __device__ float* sums() const { return reinterpret_cast<float*>(memory); }
};

// The current stage, and the parity of its barriers' phase.
struct Turn {
    int stage = 0;
    uint32_t parity = 0;

    __device__ __forceinline__ void next(const Plan& plan) {
        if (++stage == plan.stages)
            stage = 0, parity ^= 1;
    }
};

__device__ __forceinline__ void make_barriers(const SharedStages& shared) {
    if (threadIdx.x == 0) {
#pragma unroll 1
        for (int stage = 0; stage < shared.plan.stages; ++stage) {
            barrier_init(shared.full(stage), 1);
            barrier_init(shared.empty(stage), shared.plan.warpgroups * 4);
        }
        barrier_init_fence();
    }
    __syncthreads();
}

__device__ __forceinline__ void copy_tile(const Arguments& a, const SharedStages& shared, int stage,
                                          const TilePlace& place) {
    const Plan& plan = a.plan;
    const int channel = blockIdx.y * plan.groups * kGroupChannels;
    const int filter = blockIdx.z * plan.filter_blocks * kFilters;
    const HaloOrigin halo = halo_origin(a.problem);
    barrier_arrive_expecting(shared.full(stage), plan.copied_bytes());
#pragma unroll 1
    for (int group = 0; group < plan.groups; ++group)
        copy_box(shared.x(stage, group), a.x,
                 {channel + group * kGroupChannels, place.column, place.row, place.image},
                 shared.full(stage));
#pragma unroll 1
    for (int block = 0; block < plan.filter_blocks; ++block)
        copy_box(shared.grad(stage, block), a.grad,
                 {filter + block * kFilters, place.column + halo.column, place.row + halo.row,
                  place.image},
                 shared.full(stage));
}

// One thread of the block does this.
__device__ __forceinline__ void copy_tiles(const Arguments& a, const SharedStages& shared) {
    const TileRange range = tiles_of(a.plan, blockIdx.x);
    Turn turn;
#pragma unroll 1
    for (int i = 0; i < range.count; ++i, turn.next(a.plan)) {
        barrier_wait(shared.empty(turn.stage), turn.parity ^ 1);
        copy_tile(a, shared, turn.stage, tile_place(a.plan, range.first + i));
    }
}

} // namespace wgmma
} // namespace maskedconv
