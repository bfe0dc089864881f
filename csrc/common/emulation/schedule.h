// The order in which the threads of a block run: the last part of block.h.
#pragma once

#include "block.h"

namespace maskedconv {
namespace emulation {

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

// False if threads wait for an event that another block may still cause.
inline bool Block::release_barrier() {
    const auto waits = [](Waiting reason) {
        return [=](const Fiber& fiber) { return fiber.waiting == reason; };
    };
    if (!std::all_of(fibers_.begin(), fibers_.end(), waits(Waiting::barrier))) {
        if (std::any_of(fibers_.begin(), fibers_.end(), waits(Waiting::event)))
            return false;
        throw std::runtime_error("emulation: some threads never reach a barrier or a warp "
                                 "instruction where others wait");
    }
    all_fenced_ = std::all_of(fibers_.begin(), fibers_.end(),
                              [](const Fiber& fiber) { return fiber.fenced; });
    for (Fiber& fiber : fibers_)
        fiber.waiting = Waiting::no, fiber.fenced = false;
    draw_order();
    return true;
}

// Runs the first thread that can run until it waits; false if none can.
inline bool Block::run_one() {
    const auto next = std::find_if(order_.begin(), order_.end(), [&](int thread) {
        const Fiber& fiber = fibers_[thread];
        return fiber.waiting == Waiting::no || (fiber.waiting == Waiting::event && fiber.event());
    });
    if (next == order_.end())
        return false;
    current_ = *next;
    fibers_[current_].waiting = Waiting::no;
    threadIdx.x = current_;
    swapcontext(&scheduler_, &fibers_[current_].context);
    if (error_)
        std::rethrow_exception(error_);
    return true;
}

// One of the effects that are still to come, in any order.
inline bool Block::let_happen() {
    if (later_.empty())
        return false;
    std::swap(later_[random_() % later_.size()], later_.back());
    const auto effect = std::move(later_.back());
    later_.pop_back();
    effect();
    return true;
}

inline bool Block::has_ended() const {
    return std::all_of(fibers_.begin(), fibers_.end(),
                       [](const Fiber& f) { return f.waiting == Waiting::finished; });
}

inline void Block::check_nothing_is_under_way() const {
    if (!later_.empty() || !std::all_of(products.begin(), products.end(),
                                        [](const WarpProducts& p) { return p.idle(); }))
        throw std::runtime_error("emulation: a block ends while copies or products are under way");
}

inline Progress Block::run_some() {
    // Average steps until another block's turn: sometimes so many that a block gets far ahead.
    const unsigned on_average = random_() % 8 == 0 ? 4096 : 16;
    block = this, blockIdx = place_;
    Progress progress = Progress::none;
    do {
        if (!run_one()) {
            if (has_ended()) {
                check_nothing_is_under_way();
                return Progress::ended;
            }
            if (!let_happen() && !release_barrier())
                return progress;
        }
        progress = Progress::made;
    } while (random_() % on_average != 0);
    return progress;
}

} // namespace emulation
} // namespace maskedconv
