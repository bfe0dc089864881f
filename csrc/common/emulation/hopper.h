// The instructions of common/cuda/hopper.h on the CPU, as the PTX ISA documents them and as read
// here. This does not show that hardware does the same.
//
// A copy lands, and its bytes reach its barrier, at once or when no thread of the block can
// continue; until then its target is NaN. A product reads its operands at once or as late as at the
// wait. Three fences of the memory model are checked: before products, after new barriers, and
// between writes of threads (store_operand) and products. Proxies are not distinguished otherwise.
#pragma once

#include "products.h"

namespace maskedconv {

using TensorMap = TensorMapArguments;
inline TensorMap encode_tensor_map(const TensorMapArguments& arguments) { return arguments; }

namespace emulation {

inline TransactionBarrier& barrier_at(const Barrier* barrier) {
    const auto found = block->barriers.find(barrier);
    if (found == block->barriers.end())
        throw std::runtime_error("emulation: a barrier is used before it is made");
    return found->second;
}

// The elements of a box, swizzled if the map says so; elements outside of the images are zeros.
class BoxCopy {
  public:
    BoxCopy(unsigned char* to, const TensorMap& map, const BoxPlace& at)
        : to_(to), map_(map), first_{at.channel, at.column, at.row, at.image} {
        if (reinterpret_cast<uintptr_t>(to) % 128)
            throw std::runtime_error("emulation: the target of a box is not aligned to 128 bytes");
        block->check_shared(to, kMapElement);
        block->check_shared(to + bytes() - kMapElement, kMapElement);
    }

    int64_t bytes() const {
        return int64_t{map_.box[0]} * map_.box[1] * map_.box[2] * map_.box[3] * kMapElement;
    }

    void hide() const { std::memset(to_, 0xff, bytes()); }

    void land() const {
        for (int64_t i = 0; i < bytes() / kMapElement; ++i) {
            uint16_t value = 0;
            if (const unsigned char* from = source(i))
                std::memcpy(&value, from, kMapElement);
            std::memcpy(target(i), &value, kMapElement);
        }
    }

  private:
    // Shared memory is aligned to 1024 bytes, so that the host's addresses are swizzled alike.
    unsigned char* target(int64_t i) const {
        const auto address = reinterpret_cast<uintptr_t>(to_ + i * kMapElement);
        if (map_.swizzle == Swizzle::none)
            return to_ + i * kMapElement;
        const auto low = static_cast<uint32_t>(address & 1023);
        return reinterpret_cast<unsigned char*>(address - low + swizzle128(low));
    }

    const unsigned char* source(int64_t i) const {
        const auto* from = static_cast<const unsigned char*>(map_.address);
        for (int dim = 0; dim < kMapSizes; ++dim) {
            const int64_t place = first_[dim] + i % map_.box[dim];
            if (place < 0 || place >= static_cast<int64_t>(map_.sizes[dim]))
                return nullptr;
            from += place * (dim ? static_cast<int64_t>(map_.steps[dim - 1]) : kMapElement);
            i /= map_.box[dim];
        }
        return from;
    }

    unsigned char* to_;
    TensorMap map_;
    int first_[kMapSizes];
};

// Once for the warp, when all its lanes have come.
template <typename Execute> void for_the_warp(const char* name, Execute execute) {
    block->warp_instruction(name, nullptr, nullptr, [=](const WarpExchange&) {
        execute(block->products[block->current_warp()]);
    });
}

} // namespace emulation

inline unsigned char* swizzled_memory() { return emulation::block->shared(); }

inline uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(static_cast<const unsigned char*>(pointer) -
                                 emulation::block->shared()) +
           emulation::kSharedStart;
}

inline void barrier_init(Barrier* barrier, int arrivals) {
    emulation::block->check_shared(barrier, sizeof(Barrier));
    emulation::block->barriers[barrier] = {arrivals, arrivals};
}

inline void barrier_init_fence() {
    for (auto& entry : emulation::block->barriers)
        entry.second.visible = true;
}

inline void barrier_arrive(Barrier* barrier) { emulation::barrier_at(barrier).arrive(); }

inline void barrier_arrive_expecting(Barrier* barrier, int bytes) {
    emulation::TransactionBarrier& found = emulation::barrier_at(barrier);
    found.bytes += bytes;
    found.arrive();
}

inline void barrier_wait(Barrier* barrier, uint32_t parity) {
    const emulation::TransactionBarrier& found = emulation::barrier_at(barrier);
    emulation::block->wait_until([&found, parity] { return (found.ended & 1) != parity; });
}

inline void copy_box(void* to, const TensorMap& map, const BoxPlace& at, Barrier* barrier) {
    emulation::TransactionBarrier& found = emulation::barrier_at(barrier);
    if (!found.visible)
        throw std::runtime_error("emulation: a copy cannot see its barrier without a fence");
    const emulation::BoxCopy copy(static_cast<unsigned char*>(to), map, at);
    copy.hide();
    emulation::block->happens_later([copy, &found] {
        copy.land();
        found.deliver(copy.bytes());
    });
}

inline void load_operand(uint32_t (&to)[2], const void* from) {
    emulation::block->check_shared(from, sizeof to);
    std::memcpy(to, from, sizeof to);
}
inline void store_operand(void* to, const uint32_t (&from)[2]) {
    emulation::block->check_shared(to, sizeof from);
    std::memcpy(to, from, sizeof from);
    emulation::block->unfenced.write(to, threadIdx.x);
}
inline void proxy_fence() { emulation::block->unfenced.fence(threadIdx.x); }

inline void sync_warps(int number, int threads) {
    emulation::NamedBarrier& barrier = emulation::block->named_barriers[number];
    const unsigned before = barrier.ended;
    barrier.arrive(threads);
    emulation::block->wait_until([&barrier, before] { return barrier.ended != before; });
}

inline void products_fence() {
    emulation::for_the_warp("wgmma.fence", [](emulation::WarpProducts& p) { p.fence(); });
}
inline void products_commit() {
    emulation::for_the_warp("wgmma.commit", [](emulation::WarpProducts& p) { p.commit(); });
}
template <int kPending> void products_wait() {
    emulation::for_the_warp("wgmma.wait", [](emulation::WarpProducts& p) { p.wait(kPending); });
}
template <int kCount> void pin(float (&)[kCount]) {}

template <int kCount>
void wgmma_bfloat16(float (&sum)[kCount], const uint32_t (&a)[4], uint64_t b) {
    emulation::product("wgmma.bf16", sum, {a, 0, b}, emulation::from_bfloat16);
}
template <int kCount> void wgmma_float16(float (&sum)[kCount], const uint32_t (&a)[4], uint64_t b) {
    emulation::product("wgmma.f16", sum, {a, 0, b}, emulation::from_float16);
}
inline void wgmma_bfloat16(float (&sum)[32], uint64_t a, uint64_t b) {
    emulation::product("wgmma.bf16", sum, {nullptr, a, b}, emulation::from_bfloat16);
}
inline void wgmma_float16(float (&sum)[32], uint64_t a, uint64_t b) {
    emulation::product("wgmma.f16", sum, {nullptr, a, b}, emulation::from_float16);
}

inline void cluster_sync() { emulation::cluster->barrier(); }

inline float load_from_cluster(const float* here, int rank) {
    emulation::Block& there = *emulation::cluster->blocks.at(rank);
    const auto offset = reinterpret_cast<const unsigned char*>(here) - emulation::block->shared();
    if (there.has_ended())
        throw std::runtime_error("emulation: the shared memory of a block that has ended is read");
    there.check_shared(there.shared() + offset, sizeof(float));
    float value;
    std::memcpy(&value, there.shared() + offset, sizeof value);
    return value;
}

template <typename Arguments>
void launch_clusters(const char* name, void (*kernel)(Arguments), const ClusterLaunch& how,
                     Arguments arguments) {
    launch_blocks(name, kernel,
                  {how.grid, how.cluster, how.threads, static_cast<size_t>(how.shared_bytes)},
                  arguments);
}

} // namespace maskedconv
