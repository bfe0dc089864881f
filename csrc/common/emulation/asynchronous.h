// Asynchronous work of a block: barriers that count arrivals and bytes, and products of
// warpgroups.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <stdexcept>
#include <utility>
#include <vector>

namespace maskedconv {
namespace emulation {

// PTX ISA, "mbarrier": a phase ends when all arrivals and all bytes that were announced have come.
struct TransactionBarrier {
    int arrivals;      // of each phase
    int missing;       // of the current one
    int64_t bytes = 0; // announced and not there yet
    uint32_t ended = 0;
    bool visible = false; // to copies

    void arrive() {
        if (--missing < 0)
            throw std::runtime_error("emulation: more arrive at a barrier than it was made for");
        end_phase();
    }
    void deliver(int64_t count) {
        bytes -= count;
        end_phase();
    }

  private:
    void end_phase() {
        if (missing == 0 && bytes == 0)
            missing = arrivals, ++ended;
    }
};

// A barrier of some warps, of a number that each of them gives.
struct NamedBarrier {
    int arrived = 0, expected = 0;
    unsigned ended = 0;

    void arrive(int threads) {
        if (threads % 32 || (arrived > 0 && threads != expected))
            throw std::runtime_error("emulation: a barrier of some warps has other numbers of "
                                     "threads, or not of whole warps");
        expected = threads;
        if (++arrived == threads)
            arrived = 0, ++ended;
    }
};

// Pieces of 8 bytes that threads have written and not fenced, so that products do not see them.
class UnfencedWrites {
  public:
    void write(const void* to, unsigned thread) { writer_[piece(to)] = thread; }

    void fence(unsigned thread) {
        for (auto entry = writer_.begin(); entry != writer_.end();)
            entry = entry->second == thread ? writer_.erase(entry) : std::next(entry);
    }

    bool has(const void* address) const { return writer_.count(piece(address)) > 0; }

  private:
    static uintptr_t piece(const void* address) { return reinterpret_cast<uintptr_t>(address) / 8; }
    std::map<uintptr_t, unsigned> writer_;
};

// A lane's registers that a product adds to.
struct SumRegisters {
    float* first;
    int count;
};

// The products of one warp's rows. Registers of sums are NaN from a product to the wait for it, and
// values written there meanwhile are lost; operands are read as late as at the wait.
class WarpProducts {
  public:
    // `compute(sums)`; `sums` maps the registers of `to` to the sums that they hold.
    using Compute = std::function<void(const std::function<float*(float*)>&)>;

    void registers_written() { fenced_ = false; }
    void fence() { fenced_ = true; }

    void add(const std::vector<SumRegisters>& to, Compute compute, bool at_once) {
        if (!fenced_)
            throw std::runtime_error("emulation: a product of registers that were written since "
                                     "the last fence of products");
        for (const SumRegisters& registers : to)
            take(registers);
        open_.push_back({std::move(compute), false, to});
        if (at_once)
            compute_all();
    }

    void commit() {
        groups_.push_back(std::move(open_));
        open_.clear();
    }

    void wait(int pending) {
        while (static_cast<int>(groups_.size()) > pending) {
            std::vector<Product> done = std::move(groups_.front());
            groups_.erase(groups_.begin());
            for (Product& product : done)
                run(product);
            for (const Product& product : done)
                for (const SumRegisters& registers : product.to)
                    give_back(registers);
        }
    }

    bool idle() const { return open_.empty() && groups_.empty(); }

  private:
    struct Product {
        Compute compute;
        bool computed;
        std::vector<SumRegisters> to;
    };
    struct Held {
        std::vector<float> values;
        int users;
    };

    void take(const SumRegisters& registers) {
        Held& held = held_[registers.first];
        if (held.users++)
            return;
        held.values.assign(registers.first, registers.first + registers.count);
        std::fill_n(registers.first, registers.count, std::numeric_limits<float>::quiet_NaN());
    }

    void give_back(const SumRegisters& registers) {
        Held& held = held_.at(registers.first);
        if (--held.users)
            return;
        std::copy(held.values.begin(), held.values.end(), registers.first);
        held_.erase(registers.first);
    }

    void run(Product& product) {
        if (!product.computed)
            product.compute([&](float* first) { return held_.at(first).values.data(); });
        product.computed = true;
    }

    // In order, as hardware does.
    void compute_all() {
        for (auto& group : groups_)
            for (Product& product : group)
                run(product);
        for (Product& product : open_)
            run(product);
    }

    bool fenced_ = false;
    std::vector<Product> open_;
    std::vector<std::vector<Product>> groups_;
    std::map<float*, Held> held_;
};

} // namespace emulation
} // namespace maskedconv
