// Runs CUDA kernels on the CPU, to test them where there is no GPU: the host's side of
// common/cuda/device.h and the parts of CUDA C++ that the kernels use.
//
// Each thread of a block is a fiber; blocks run one after the other. A seed chooses the order in
// which warps run (each to its next barrier or warp instruction, in an order drawn anew at each
// barrier) and, for each asynchronous copy, whether it lands at once or only at the wait for it:
// until then its target holds NaN. Shared memory starts as NaN. A barrier or a warp instruction
// that some threads never reach is an error. Nothing is said of the memory model, of speed, or of
// how real hardware lays out fragments: those are the layouts of the PTX manual, as read here.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace maskedconv {

constexpr unsigned kAllLanes = 0xffffffffu;

namespace emulation {

struct PendingCopy {
    unsigned char* to;
    unsigned char data[16];
    int size;
};

enum class Waiting { no, barrier, warp, finished };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    Waiting waiting = Waiting::no;
    std::vector<std::vector<PendingCopy>> groups; // committed, oldest first
    std::vector<PendingCopy> open;                // not committed
};

// What the lanes of a warp bring to a warp instruction; the last to arrive executes it for all.
struct WarpExchange {
    std::string instruction;
    int arrived = 0;
    const void* in[32];
    void* out[32];
};

class Block {
  public:
    Block(int threads, size_t shared_bytes, std::mt19937& random)
        : shared_(shared_bytes / 16 * 2 + 2), fibers_(threads), warps_((threads + 31) / 32),
          random_(random) {
        if (threads % 32)
            throw std::runtime_error("emulation: blocks are of whole warps");
        std::memset(shared_.data(), 0xff, shared_.size() * sizeof(shared_[0])); // NaN in each type
    }

    void run(const std::function<void()>& body);
    unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()); }

    void barrier() { pause(Waiting::barrier); }

    // `execute(exchange)` runs once, when all lanes have come with `in` and `out`.
    template <typename Execute>
    void warp_instruction(const char* name, const void* in, void* out, Execute execute) {
        WarpExchange& exchange = warps_[current_ / 32];
        if (exchange.arrived && exchange.instruction != name)
            throw std::runtime_error("emulation: a warp diverges at " + exchange.instruction +
                                     " and " + name);
        exchange.instruction = name;
        exchange.in[current_ % 32] = in;
        exchange.out[current_ % 32] = out;
        if (++exchange.arrived < 32)
            return pause(Waiting::warp);
        execute(exchange);
        exchange.arrived = 0;
        for (int lane = 0; lane < 32; ++lane)
            fibers_[current_ / 32 * 32 + lane].waiting = Waiting::no;
    }

    // Throws unless the bytes are shared memory and aligned to their number.
    void check_shared(const void* pointer, int bytes);

    void copy_async(void* to, const void* from, int bytes, int size);
    void commit();
    void wait(int pending);

  private:
    static void entry();
    void start(Fiber& fiber);
    void pause(Waiting reason);
    void release_barrier();
    void draw_order();

    std::vector<uint64_t> shared_;
    std::vector<Fiber> fibers_;
    std::vector<WarpExchange> warps_;
    std::vector<int> order_; // of threads: a warp's stay together
    std::mt19937& random_;
    std::function<void()> body_;
    ucontext_t scheduler_;
    std::exception_ptr error_;
    int current_ = 0;
};

inline Block* block = nullptr; // the one that runs
inline std::mt19937 random_source;

inline void land(const PendingCopy& copy) { std::memcpy(copy.to, copy.data, copy.size); }

inline void Block::check_shared(const void* pointer, int bytes) {
    const auto* first = static_cast<const unsigned char*>(pointer);
    if (first < shared() || first + bytes > shared() + shared_.size() * sizeof(shared_[0]))
        throw std::runtime_error("emulation: an access leaves the shared memory");
    if (reinterpret_cast<uintptr_t>(first) % bytes)
        throw std::runtime_error("emulation: an access to shared memory is misaligned");
}

inline void Block::copy_async(void* to, const void* from, int bytes, int size) {
    check_shared(to, size);
    if (reinterpret_cast<uintptr_t>(from) % size || bytes < 0 || bytes > size)
        throw std::runtime_error("emulation: a copy of " + std::to_string(bytes) + " of " +
                                 std::to_string(size) + " bytes is misaligned or too large");
    auto* target = static_cast<unsigned char*>(to);
    PendingCopy copy{target, {}, size};
    std::memcpy(copy.data, from, bytes);
    if (random_() & 1)
        return land(copy);
    std::memset(target, 0xff, size);
    fibers_[current_].open.push_back(copy);
}

inline void Block::commit() {
    Fiber& fiber = fibers_[current_];
    fiber.groups.push_back(std::move(fiber.open));
    fiber.open.clear();
}

inline void Block::wait(int pending) {
    auto& groups = fibers_[current_].groups;
    while (static_cast<int>(groups.size()) > pending) {
        std::for_each(groups.front().begin(), groups.front().end(), land);
        groups.erase(groups.begin());
    }
}

inline void Block::draw_order() {
    std::vector<int> warps(warps_.size());
    for (size_t i = 0; i < warps.size(); ++i)
        warps[i] = static_cast<int>(i);
    std::shuffle(warps.begin(), warps.end(), random_);
    order_.clear();
    for (const int warp : warps)
        for (int lane = 0; lane < 32; ++lane)
            order_.push_back(warp * 32 + lane);
}

inline void Block::entry() {
    try {
        block->body_();
    } catch (...) {
        block->error_ = std::current_exception();
    }
    block->fibers_[block->current_].waiting = Waiting::finished;
    setcontext(&block->scheduler_);
}

inline void Block::start(Fiber& fiber) {
    constexpr size_t kStackBytes = 64 * 1024;
    fiber.stack.reset(new unsigned char[kStackBytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::entry, 0);
}

inline void Block::pause(Waiting reason) {
    Fiber& fiber = fibers_[current_];
    fiber.waiting = reason;
    swapcontext(&fiber.context, &scheduler_);
}

inline void Block::release_barrier() {
    for (const Fiber& fiber : fibers_)
        if (fiber.waiting != Waiting::barrier)
            throw std::runtime_error("emulation: some threads never reach a barrier or a warp "
                                     "instruction where others wait");
    for (Fiber& fiber : fibers_)
        fiber.waiting = Waiting::no;
    draw_order();
}

inline void Block::run(const std::function<void()>& body) {
    body_ = body;
    block = this;
    for (Fiber& fiber : fibers_)
        start(fiber);
    draw_order();
    for (;;) {
        const auto next = std::find_if(order_.begin(), order_.end(), [&](int thread) {
            return fibers_[thread].waiting == Waiting::no;
        });
        if (next != order_.end()) {
            current_ = *next;
            threadIdx.x = current_;
            swapcontext(&scheduler_, &fibers_[current_].context);
            if (error_)
                std::rethrow_exception(error_);
            continue;
        }
        if (std::all_of(fibers_.begin(), fibers_.end(),
                        [](const Fiber& f) { return f.waiting == Waiting::finished; }))
            return;
        release_barrier();
    }
}

} // namespace emulation

inline void seed_emulation(unsigned seed) { emulation::random_source.seed(seed); }

inline unsigned char* shared_memory() { return emulation::block->shared(); }

template <int kBytes> void copy_async(void* to, const void* from, int bytes) {
    emulation::block->copy_async(to, from, bytes, kBytes);
}
inline void copy_async_or_zeros(void* to, const void* from, bool present) {
    emulation::block->copy_async(to, from, present ? 16 : 0, 16);
}
inline void copy_async_commit() { emulation::block->commit(); }
template <int kPending> void copy_async_wait() { emulation::block->wait(kPending); }

// Lane l gets elements [2 (l % 4)][l / 4] and [2 (l % 4) + 1][l / 4] of each 8x8 matrix.
template <size_t kMatrices>
void load_matrices_transposed(uint32_t (&to)[kMatrices], const void* row) {
    emulation::block->warp_instruction(
        "ldmatrix.trans", row, to, [](const emulation::WarpExchange& exchange) {
            for (int lane = 0; lane < 32; ++lane)
                for (size_t matrix = 0; matrix < kMatrices; ++matrix) {
                    uint16_t two[2];
                    for (int i = 0; i < 2; ++i) {
                        const void* from = exchange.in[matrix * 8 + lane % 4 * 2 + i];
                        emulation::block->check_shared(from, 16);
                        two[i] = static_cast<const uint16_t*>(from)[lane / 4];
                    }
                    static_cast<uint32_t*>(exchange.out[lane])[matrix] =
                        two[0] | static_cast<uint32_t>(two[1]) << 16;
                }
        });
}

namespace emulation {

struct MmaOperands {
    const uint32_t* a;
    const uint32_t* b;
};

// One mma.m16n8kK: `element(bits, i)` is the i-th of kPerRegister elements of a register.
template <int kK, typename Element>
void mma(const char* name, float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
         Element element) {
    const MmaOperands operands{a, b};
    block->warp_instruction(name, &operands, sum, [=](const WarpExchange& exchange) {
        constexpr int kPerRegister = kK / 8;
        const auto operand = [&](int lane) {
            return static_cast<const MmaOperands*>(exchange.in[lane]);
        };
        // k lies in register half k / (kK / 2), lane k / kPerRegister % 4.
        const auto a_at = [&](int row, int k) {
            const int lane = row % 8 * 4 + k / kPerRegister % 4;
            return element(operand(lane)->a[row / 8 + k / (kK / 2) * 2], k % kPerRegister);
        };
        const auto b_at = [&](int k, int column) {
            const int lane = column * 4 + k / kPerRegister % 4;
            return element(operand(lane)->b[k / (kK / 2)], k % kPerRegister);
        };
        float a_values[16][kK], b_values[kK][8];
        for (int k = 0; k < kK; ++k) {
            for (int row = 0; row < 16; ++row)
                a_values[row][k] = a_at(row, k);
            for (int column = 0; column < 8; ++column)
                b_values[k][column] = b_at(k, column);
        }
        for (int lane = 0; lane < 32; ++lane)
            for (int i = 0; i < 4; ++i) {
                float& value = static_cast<float*>(exchange.out[lane])[i];
                const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
                for (int k = 0; k < kK; ++k)
                    value += a_values[row][k] * b_values[k][column];
            }
    });
}

} // namespace emulation

inline void mma_bfloat16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<16>("mma.bf16", sum, a, b, [](uint32_t bits, int i) {
        return __uint_as_float(i ? bits & 0xffff0000u : bits << 16);
    });
}

inline void mma_float16(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<16>("mma.f16", sum, a, b, [](uint32_t bits, int i) {
        const auto half = static_cast<uint16_t>(i ? bits >> 16 : bits);
        _Float16 value;
        std::memcpy(&value, &half, 2);
        return static_cast<float>(value);
    });
}

inline void mma_tf32(float (&sum)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulation::mma<8>("mma.tf32", sum, a, b, [](uint32_t bits, int) {
        return __uint_as_float(bits & 0xffffe000u); // hardware reads 19 bits
    });
}

// To the nearest of 10 bits of mantissa, ties away from zero; NaN becomes the one that hardware
// has.
inline uint32_t round_to_tf32(float value) {
    const uint32_t bits = __float_as_uint(value);
    if (std::isnan(value))
        return 0x7fffffffu;
    return std::isfinite(value) ? (bits + 0x1000u) & 0xffffe000u : bits;
}

inline void keep(int&) {}

// NaN becomes the one that hardware has.
inline uint32_t pack_relu_bfloat16(float low, float high) {
    const auto half = [](float value) -> uint32_t {
        const uint32_t bits = __float_as_uint(value);
        if (std::isnan(value))
            return 0x7fff;
        return value > 0.0f ? (bits + 0x7fffu + (bits >> 16 & 1)) >> 16 : 0;
    };
    return half(low) | half(high) << 16;
}

inline uint32_t pack_relu_float16(float low, float high) {
    const auto half = [](float value) -> uint32_t {
        const auto rounded = static_cast<_Float16>(value);
        uint16_t bits;
        std::memcpy(&bits, &rounded, 2);
        if (std::isnan(value))
            return 0x7fff;
        return value > 0.0f ? bits : 0;
    };
    return half(low) | half(high) << 16;
}

inline int64_t computed_again = 0; // elements, since it was set to 0
inline void count_computed_again() { ++computed_again; }

inline void __syncthreads() { emulation::block->barrier(); }
inline void __threadfence() {} // blocks run one after the other
inline float __ldcg(const float* from) { return *from; }

inline unsigned atomicAdd(unsigned* to, unsigned value) {
    *to += value;
    return *to - value;
}

inline unsigned __ballot_sync(unsigned, bool predicate) {
    unsigned result;
    emulation::block->warp_instruction(
        "ballot", &predicate, &result, [](const emulation::WarpExchange& exchange) {
            unsigned bits = 0;
            for (int lane = 0; lane < 32; ++lane)
                bits |= static_cast<unsigned>(*static_cast<const bool*>(exchange.in[lane])) << lane;
            for (int lane = 0; lane < 32; ++lane)
                *static_cast<unsigned*>(exchange.out[lane]) = bits;
        });
    return result;
}

// Names of the kernels launched since they were last taken. Without `executes` they are only
// counted: nothing is read or written.
inline bool executes = true;
inline std::vector<std::string> launches;

template <typename Arguments>
void launch(const char* name, void (*kernel)(Arguments), dim3 grid, int threads, int shared_bytes,
            uintptr_t, Arguments arguments) {
    launches.push_back(name);
    if (!executes)
        return;
    gridDim = grid;
    blockDim = dim3(threads);
    for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
                emulation::Block block(threads, shared_bytes, emulation::random_source);
                block.run([&] { kernel(arguments); });
            }
}

} // namespace maskedconv
