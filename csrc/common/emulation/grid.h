// The blocks of a launch: some are under way at a time, as on a GPU, in a drawn order.
#pragma once

#include "block.h"

namespace maskedconv {
namespace emulation {

inline std::vector<dim3> places_of(const dim3& grid) {
    std::vector<dim3> places;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x)
                places.emplace_back(x, y, z);
    return places;
}

// `body`: the kernel, as each thread calls it.
inline void run_grid(const dim3& grid, int threads, size_t shared_bytes,
                     const std::function<void()>& body) {
    constexpr size_t kAtOnce = 3;
    std::vector<dim3> waiting = places_of(grid);
    std::shuffle(waiting.begin(), waiting.end(), random_source);
    std::vector<std::unique_ptr<Block>> running;
    while (!waiting.empty() || !running.empty()) {
        while (!waiting.empty() && running.size() < kAtOnce) {
            running.push_back(std::make_unique<Block>(waiting.back(), threads, shared_bytes, body,
                                                      random_source));
            waiting.pop_back();
        }
        const auto next = running.begin() + random_source() % running.size();
        if (!(*next)->run_some())
            running.erase(next);
    }
}

} // namespace emulation
} // namespace maskedconv
