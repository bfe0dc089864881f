// One block of threads, each a fiber.
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
    bool fenced = false;                          // since the last barrier
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
    // `body`: the kernel, as each thread calls it.
    Block(const dim3& place, int threads, size_t shared_bytes, const std::function<void()>& body,
          std::mt19937& random)
        : place_(place), shared_(shared_bytes / 16 * 2 + 2), fibers_(threads),
          warps_((threads + 31) / 32), random_(random), body_(body) {
        if (threads % 32)
            throw std::runtime_error("emulation: blocks are of whole warps");
        std::memset(shared_.data(), 0xff, shared_.size() * sizeof(shared_[0])); // NaN in each type
        for (Fiber& fiber : fibers_)
            start(fiber);
        draw_order();
    }

    // Runs some of the threads, each until it waits; false where all have ended.
    bool run_some();
    unsigned char* shared() { return reinterpret_cast<unsigned char*>(shared_.data()); }

    void barrier() { pause(Waiting::barrier); }
    void fence() { fibers_[current_].fenced = true; }

    // Of a thread that tells other blocks what this one has left in global memory.
    void check_left() const {
        if (!all_fenced_)
            throw std::runtime_error("emulation: a block is counted although not each of its "
                                     "threads passed a fence before the last barrier");
    }

    // Of a thread that reads what other blocks have left.
    void check_fenced() const {
        if (!fibers_[current_].fenced)
            throw std::runtime_error("emulation: other blocks' memory is read without a fence "
                                     "since the last barrier");
    }

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
    bool run_one();

    dim3 place_;
    std::vector<uint64_t> shared_;
    std::vector<Fiber> fibers_;
    std::vector<WarpExchange> warps_;
    std::vector<int> order_; // of threads: a warp's stay together
    std::mt19937& random_;
    const std::function<void()>& body_;
    bool all_fenced_ = false; // before the last barrier
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
    all_fenced_ = std::all_of(fibers_.begin(), fibers_.end(),
                              [](const Fiber& fiber) { return fiber.fenced; });
    for (Fiber& fiber : fibers_)
        fiber.waiting = Waiting::no, fiber.fenced = false;
    draw_order();
}

// The first thread that may run does, until it waits; false where none may.
inline bool Block::run_one() {
    const auto next = std::find_if(order_.begin(), order_.end(), [&](int thread) {
        return fibers_[thread].waiting == Waiting::no;
    });
    if (next == order_.end())
        return false;
    current_ = *next;
    threadIdx.x = current_;
    swapcontext(&scheduler_, &fibers_[current_].context);
    if (error_)
        std::rethrow_exception(error_);
    return true;
}

inline bool Block::run_some() {
    constexpr unsigned kOnAverage = 16; // until another block's turn comes
    block = this, blockIdx = place_;
    do {
        if (run_one())
            continue;
        if (std::all_of(fibers_.begin(), fibers_.end(),
                        [](const Fiber& f) { return f.waiting == Waiting::finished; }))
            return false;
        release_barrier();
    } while (random_() % kOnAverage != 0);
    return true;
}

} // namespace emulation

} // namespace maskedconv
