// The instructions of common/cuda/hopper.h on the CPU, as the PTX ISA documents them and as read
// here: that hardware does the same is not shown by this.
//
// A copy lands, and the bytes of its barrier come, at once or where no thread of the block can go
// on; until then its target is NaN. A product reads its operands at once or as late as at the wait.
// Each warp computes its own 16 of the 64 rows. Of the memory model this checks the fence of
// products and that of new barriers; proxies are not told apart otherwise.
#pragma once

#include "emulation.h"

namespace maskedconv {

using TensorMap = TensorMapArguments;
inline TensorMap encode_tensor_map(const TensorMapArguments& arguments) { return arguments; }

namespace emulation {

constexpr uint32_t kSharedStart = 1024; // shared memory does not begin at address 0

inline TransactionBarrier& barrier_at(const Barrier* barrier) {
    const auto found = block->barriers.find(barrier);
    if (found == block->barriers.end())
        throw std::runtime_error("emulation: a barrier is used before it is made");
    return found->second;
}

// The elements of a box, swizzled where the map says so; those outside of the images are zeros.
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

inline float shared_element(uint32_t address, float (*to_float)(uint16_t)) {
    const unsigned char* from = block->shared() + (address - kSharedStart);
    block->check_shared(from, kMapElement);
    uint16_t bits;
    std::memcpy(&bits, from, kMapElement);
    return to_float(bits);
}

inline MatrixPlace decoded(uint64_t descriptor) {
    const auto offset = [=](int bit) {
        return static_cast<uint32_t>(descriptor >> bit & 0x3fff) << 4;
    };
    if (descriptor >> 46)
        throw std::runtime_error("emulation: a descriptor of a swizzled operand");
    return {offset(0), offset(16), offset(32)};
}

struct ProductOperands {
    const uint32_t* a;
    uint64_t b;
};

// One warp's 16 rows of a product.
inline void compute_rows(const std::vector<SumRegisters>& to,
                         const std::vector<ProductOperands>& operands, float (*to_float)(uint16_t),
                         const std::function<float*(float*)>& sums) {
    constexpr int kRows = 16, kDepth = 16;
    const MatrixPlace place = decoded(operands[0].b);
    std::vector<float> a(kRows * kDepth);
    for (int row = 0; row < kRows; ++row)
        for (int k = 0; k < kDepth; ++k) {
            const uint32_t bits =
                operands[row % 8 * 4 + k / 2 % 4].a[row / 8 + k / 8 * 2] >> (k % 2 * 16);
            a[row * kDepth + k] = to_float(static_cast<uint16_t>(bits));
        }
    for (int column = 0; column < to[0].count * 2; ++column) {
        float b[kDepth];
        for (int k = 0; k < kDepth; ++k)
            b[k] = shared_element(element_address(place, k, column), to_float);
        for (int row = 0; row < kRows; ++row) {
            const int lane = row % 8 * 4 + column % 8 / 2;
            float& sum = sums(to[lane].first)[column / 8 * 4 + row / 8 * 2 + column % 2];
            for (int k = 0; k < kDepth; ++k)
                sum += a[row * kDepth + k] * b[k];
        }
    }
}

template <int kCount>
void product(const char* name, float (&sum)[kCount], const uint32_t (&a)[4], uint64_t b,
             float (*to_float)(uint16_t)) {
    const ProductOperands mine{a, b};
    block->warp_instruction(name, &mine, sum, [=](const WarpExchange& lanes) {
        std::vector<SumRegisters> to;
        std::vector<ProductOperands> operands;
        for (int lane = 0; lane < 32; ++lane) {
            to.push_back({static_cast<float*>(lanes.out[lane]), kCount});
            operands.push_back(*static_cast<const ProductOperands*>(lanes.in[lane]));
            if (operands[lane].b != operands[0].b)
                throw std::runtime_error("emulation: the lanes' descriptors differ");
        }
        block->products[block->current_warp()].add(
            to,
            [=](const std::function<float*(float*)>& sums) {
                compute_rows(to, operands, to_float, sums);
            },
            block->draw());
    });
}

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
    emulation::product("wgmma.bf16", sum, a, b, [](uint16_t bits) {
        return __uint_as_float(static_cast<uint32_t>(bits) << 16);
    });
}

template <int kCount> void wgmma_float16(float (&sum)[kCount], const uint32_t (&a)[4], uint64_t b) {
    emulation::product("wgmma.f16", sum, a, b, [](uint16_t bits) {
        _Float16 value;
        std::memcpy(&value, &bits, 2);
        return static_cast<float>(value);
    });
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
