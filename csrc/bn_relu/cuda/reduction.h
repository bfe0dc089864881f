// Sums over all pixels in one launch: the block that ends last adds up the sums of all blocks.
#pragma once

#include "bn_relu/cuda/vectors.h"
#include "common/cuda/last_block.h"

namespace maskedconv {

// Two numbers for each channel of a vector, and how the numbers of two sets of pixels are joined.
// `count` is the number of pixels.
template <int kWidth> struct Sums {
    float count = 0.0f;
    float first[kWidth] = {}, second[kWidth] = {};

    __device__ __forceinline__ void join(const Sums& other) {
        count += other.count;
        for (int i = 0; i < kWidth; ++i) {
            first[i] += other.first[i];
            second[i] += other.second[i];
        }
    }
};

// Mean and sum of squared deviations (Chan, Golub & LeVeque 1979).
template <int kWidth> struct Spread {
    float count = 0.0f;
    float first[kWidth] = {}, second[kWidth] = {};

    __device__ __forceinline__ void join(const Spread& other) {
        const float both = count + other.count;
        if (other.count == 0.0f)
            return;
        const float share = other.count / both;
        for (int i = 0; i < kWidth; ++i) {
            const float gap = other.first[i] - first[i];
            first[i] = fmaf(gap, share, first[i]);
            second[i] += fmaf(gap * gap, count * share, other.second[i]);
        }
        count = both;
    }
};

// Joins the rows of a block; row 0 has the result. No round overwrites values that the previous
// one reads, so that one barrier a round is enough; between two calls there is a barrier.
template <typename Part>
__device__ __forceinline__ void join_rows(const NormThread& t, Part& part, Part* shared) {
    for (int half = t.rows / 2; half > 0; half /= 2) {
        if (t.row >= half && t.row < 2 * half)
            shared[threadIdx.x] = part;
        __syncthreads();
        if (t.row < half)
            part.join(shared[threadIdx.x + half * (kNormThreads / t.rows)]);
    }
}

struct Partials {
    float* sums;        // [pixel blocks, 2, channels] and then [pixel blocks]
    unsigned* counters; // [channel tiles], 0 before
    int channels;
    int lane_bits;
};

template <int kWidth, template <int> class Part>
__device__ __forceinline__ void leave(const Partials& p, const NormThread& t,
                                      const Part<kWidth>& part) {
    float* to = p.sums + int64_t{blockIdx.x} * 2 * p.channels + t.channel;
    for (int i = 0; i < kWidth; ++i) {
        to[i] = part.first[i];
        to[p.channels + i] = part.second[i];
    }
    if (t.lane == 0) // of each channel tile the same
        p.sums[int64_t{gridDim.x} * 2 * p.channels + blockIdx.x] = part.count;
}

// Past the L1 cache, which may hold an older state of a sector that this block has written to.
template <int kWidth, template <int> class Part>
__device__ __forceinline__ Part<kWidth> found(const Partials& p, const NormThread& t, int block) {
    Part<kWidth> part;
    const float* from = p.sums + int64_t{block} * 2 * p.channels + t.channel;
    for (int i = 0; i < kWidth; ++i) {
        part.first[i] = __ldcg(from + i);
        part.second[i] = __ldcg(from + p.channels + i);
    }
    part.count = __ldcg(p.sums + int64_t{gridDim.x} * 2 * p.channels + block);
    return part;
}

// All pixels' numbers, in row 0 of the one block for which this is true.
template <int kWidth, template <int> class Part>
__device__ __forceinline__ bool join_blocks(const Partials& p, const NormThread& t,
                                            Part<kWidth>& part) {
    auto* shared = reinterpret_cast<Part<kWidth>*>(shared_memory());
    const bool active = t.channel < p.channels;
    join_rows(t, part, shared);
    if (gridDim.x > 1) {
        if (active && t.row == 0)
            leave<kWidth, Part>(p, t, part);
        if (!ends_last(p.counters + blockIdx.y, gridDim.x,
                       reinterpret_cast<bool*>(shared + kNormThreads)))
            return false;
        part = Part<kWidth>();
        for (int block = t.row; active && block < static_cast<int>(gridDim.x); block += t.rows)
            part.join(found<kWidth, Part>(p, t, block));
        join_rows(t, part, shared);
    }
    return active && t.row == 0;
}

// Before a launch that joins blocks. Nothing else may count there meanwhile: launches that run at
// the same time, as in two captured graphs, have separate memory.
inline void clear_counters(const char* name, const NormGrid& grid, const NormWorkspace& workspace,
                           uintptr_t stream) {
    if (grid.pixel_blocks > 1)
        set_to_zero(name, workspace.counters, int64_t{grid.channel_tiles} * sizeof(unsigned),
                    stream);
}

template <typename Part> constexpr int shared_bytes_of() {
    return static_cast<int>(sizeof(Part)) * kNormThreads + 16;
}

} // namespace maskedconv
