// Runs CUDA kernels on the CPU, to test them without a GPU: the host's side of
// common/cuda/device.h and the parts of CUDA C++ that the kernels use.
//
// Each thread of a block is a fiber. A seed chooses the order in which blocks and warps run (each
// warp to its next barrier or warp instruction, in an order drawn anew at each barrier; some blocks
// are under way at a time) and, for each asynchronous copy, whether it lands at once or only at the
// wait for it: until then its target holds NaN. Shared memory starts as NaN. A barrier or a warp
// instruction that some threads never reach is an error. One rule of the memory model is checked:
// values that blocks leave for each other need a fence on both sides. The emulation shows nothing
// about speed or real hardware's fragments: their layouts are the PTX manual's, as read here.
#pragma once

#include "block.h"
#include "grid.h"
#include "tensor_cores.h"

namespace maskedconv {

constexpr unsigned kAllLanes = 0xffffffffu;

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

inline int64_t computed_again = 0; // elements, since it was set to 0
inline void count_computed_again() { ++computed_again; }

inline void __syncthreads() { emulation::block->barrier(); }
inline void __threadfence() { emulation::block->fence(); }
inline void keep(int&) {}

// Kernels use this, and nothing else, to read values of other blocks.
inline float __ldcg(const float* from) {
    emulation::block->check_fenced();
    return *from;
}

// Kernels use this to count the blocks that have written their sums.
inline unsigned atomicAdd(unsigned* to, unsigned value) {
    emulation::block->check_left();
    *to += value;
    return *to - value;
}

inline void add_atomically(unsigned* to, unsigned value) { *to += value; }

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
void launch_blocks(const char* name, void (*kernel)(Arguments), const emulation::Launch& how,
                   const Arguments& arguments) {
    launches.push_back(name);
    if (how.grid.x > INT32_MAX || std::max(how.grid.y, how.grid.z) > 65535)
        throw std::runtime_error("emulation: " + std::string(name) +
                                 " has more blocks than a grid");
    if (!executes)
        return;
    gridDim = how.grid;
    blockDim = dim3(how.threads);
    const std::function<void()> body = [&] { kernel(arguments); };
    emulation::Grid(how, body).run();
}

inline std::string kernel_error(const void*) { return ""; }

inline void set_to_zero(const char*, void* memory, int64_t bytes, uintptr_t) {
    if (executes)
        std::memset(memory, 0, static_cast<size_t>(bytes));
}

template <typename Arguments>
void launch(const char* name, void (*kernel)(Arguments), dim3 grid, int threads, int shared_bytes,
            uintptr_t, Arguments arguments) {
    launch_blocks(name, kernel, {grid, 1, threads, static_cast<size_t>(shared_bytes)}, arguments);
}

} // namespace maskedconv
