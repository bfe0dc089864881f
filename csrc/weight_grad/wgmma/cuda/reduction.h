// The sums of all blocks in one launch, in a fixed order: a cluster adds up its blocks' sums, each
// block a part of them. Of the blocks with the same part, the one that ends last adds up the sums
// of the clusters.
#pragma once

#include "common/cuda/last_block.h"
#include "weight_grad/cuda/finish.h"
#include "weight_grad/wgmma/cuda/pipeline.h"

namespace maskedconv {
namespace wgmma {

// A block's part of the sums of its channels and filters.
struct Part {
    int position, positions, rank, first, count, sums;

    __device__ Part(const Plan& plan, int sums)
        : position(blockIdx.z * gridDim.y + blockIdx.y), positions(plan.positions()),
          rank(static_cast<int>(blockIdx.x) % plan.cluster), count(sums / plan.cluster),
          sums(sums) {
        first = rank * count;
    }
};

__device__ __forceinline__ float sum_of_cluster(const SharedStages& shared, int i) {
    const float* here = shared.sums() + sum_offset(i);
    float sum = 0.0f;
    for (int rank = 0; rank < shared.plan.cluster; ++rank)
        sum += load_from_cluster(here, rank);
    return sum;
}

__device__ __forceinline__ float* partial(const Arguments& a, const Part& part, int cluster,
                                          int i) {
    return a.partials + (int64_t{cluster} * part.positions + part.position) * part.sums + i;
}

// Past the L1 cache, which may hold an older state.
__device__ __forceinline__ float sum_of_clusters(const Arguments& a, const Part& part, int i) {
    float sum = 0.0f;
    for (int cluster = 0; cluster < a.plan.clusters; ++cluster)
        sum += __ldcg(partial(a, part, cluster, i));
    return sum;
}

// Writes an element of the gradient. If it is not finite, it is computed again: see finish.h.
template <typename T, int kSide, int kFilterBlocks>
__device__ __forceinline__ void write_element(const Arguments& a, int i, float sum) {
    const WeightGrad& p = a.problem;
    const SumPlace place = sum_place<kSide, kFilterBlocks>(i);
    const int64_t filter = blockIdx.z * int64_t{kFilterBlocks * kFilters} + place.filter;
    const int64_t channel = int64_t{blockIdx.y} * a.plan.groups * kGroupChannels + place.channel;
    if (filter >= p.filters || channel >= p.channels)
        return;
    const int64_t element =
        ((filter * kSide + place.row) * kSide + place.column) * p.channels + channel;
    if (sum - sum != 0.0f) {
        sum = ExactElement<T>(p, element).sum();
        count_computed_again();
    }
    p.out[element] = sum;
}

// After all threads have stored their sums to shared memory.
template <typename T, int kSide, int kFilterBlocks>
__device__ __forceinline__ void add_blocks(const Arguments& a, const SharedStages& shared) {
    const Part part(a.plan, a.plan.groups * kGroupChannels * columns_of(kSide, kFilterBlocks));
    const int threads = static_cast<int>(blockDim.x), thread = static_cast<int>(threadIdx.x);
    const bool alone = a.plan.clusters == 1;
    const int cluster = static_cast<int>(blockIdx.x) / a.plan.cluster;
    cluster_sync(); // all blocks have their sums in shared memory
#pragma unroll 1
    for (int i = part.first + thread; i < part.first + part.count; i += threads) {
        const float sum = sum_of_cluster(shared, i);
        if (alone)
            write_element<T, kSide, kFilterBlocks>(a, i, sum);
        else
            *partial(a, part, cluster, i) = sum;
    }
    cluster_sync(); // no block reads another's shared memory from here on: it may end
    if (alone ||
        !ends_last(a.counters + part.position * a.plan.cluster + part.rank,
                   static_cast<unsigned>(a.plan.clusters), reinterpret_cast<bool*>(shared.memory)))
        return;
#pragma unroll 1
    for (int i = part.first + thread; i < part.first + part.count; i += threads)
        write_element<T, kSide, kFilterBlocks>(a, i, sum_of_clusters(a, part, i));
}

} // namespace wgmma
} // namespace maskedconv
