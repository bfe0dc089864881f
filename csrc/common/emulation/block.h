// One block of threads, each a fiber.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "asynchronous.h"
#include "cuda_runtime.h"

namespace maskedconv {
namespace emulation {

struct PendingCopy {
    unsigned char* to;
    unsigned char data[16];
    int size;
};

enum class Waiting { no, barrier, warp, event, finished };
enum class Progress { made, none, ended };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<unsigned char[]> stack;
    Waiting waiting = Waiting::no;
    std::function<bool()> event;                  // waited for
    bool fenced = false;                          // since the last barrier
    std::vector<std::vector<PendingCopy>> groups; // committed, oldest first
    std::vector<PendingCopy> open;                // not committed
};

// Operands of a warp instruction, by lane; the last lane to arrive executes it for all.
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
        : place_(place), shared_bytes_(shared_bytes), shared_memory_(shared_bytes + kAlignment),
          fibers_(threads), warps_((threads + 31) / 32), products(warps_.size()), random_(random),
          body_(body) {
        if (threads % 32)
            throw std::runtime_error("emulation: blocks are of whole warps");
        shared_memory_.assign(shared_memory_.size(), 0xff); // NaN in each type
        const auto first = reinterpret_cast<uintptr_t>(shared_memory_.data());
        shared_ = shared_memory_.data() + (kAlignment - first % kAlignment) % kAlignment;
        for (Fiber& fiber : fibers_)
            start(fiber);
        draw_order();
    }

    // Runs some of the threads, each until it waits.
    Progress run_some();
    unsigned char* shared() { return shared_; }
    bool has_ended() const;
    size_t threads() const { return fibers_.size(); }
    size_t current_warp() const { return current_ / 32; }

    void barrier() { pause(Waiting::barrier); }
    void fence() { fibers_[current_].fenced = true; }

    // Called by a thread that counts this block as having written its values to global memory.
    void check_left() const {
        if (!all_fenced_)
            throw std::runtime_error("emulation: a block is counted although not each of its "
                                     "threads passed a fence before the last barrier");
    }

    // Called by a thread that reads values that other blocks have written.
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

    // Holds this thread until the event.
    void wait_until(std::function<bool()> event) {
        while (!event()) {
            fibers_[current_].event = event;
            pause(Waiting::event);
        }
    }

    // Runs an effect of the hardware at once, or when no thread of the block can continue.
    void happens_later(std::function<void()> effect) {
        if (random_() & 1)
            return effect();
        later_.push_back(std::move(effect));
    }
    bool draw() { return random_() & 1; }

    std::map<const void*, TransactionBarrier> barriers; // by their place in shared memory
    std::map<int, NamedBarrier> named_barriers;         // by number
    UnfencedWrites unfenced;

  private:
    static void entry();
    void start(Fiber& fiber);
    void pause(Waiting reason);
    bool release_barrier();
    void draw_order();
    bool run_one();
    bool let_happen();
    void check_nothing_is_under_way() const;

    static constexpr size_t kAlignment = 1024;

    dim3 place_;
    size_t shared_bytes_;
    std::vector<unsigned char> shared_memory_;
    unsigned char* shared_;
    std::vector<Fiber> fibers_;
    std::vector<WarpExchange> warps_;

  public:
    std::vector<WarpProducts> products; // of warpgroups, by warp

  private:
    std::vector<std::function<void()>> later_;
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
    if (first < shared() || first + bytes > shared() + shared_bytes_)
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

} // namespace emulation
} // namespace maskedconv

#include "schedule.h"
