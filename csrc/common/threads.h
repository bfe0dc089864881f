// A parallel loop on the OpenMP runtime that PyTorch already has in the process.
//
// A second pool of threads would compete with PyTorch's, which spin for a while after each
// operator. The runtime is looked up at run time, so nothing is linked against it.
#pragma once

#include <cstdint>
#include <functional>

namespace maskedconv {

// Calls body(thread, count) once on each of at most `threads` threads, with their actual number;
// on the calling thread alone if no OpenMP runtime is loaded. When all threads are done, rethrows
// the first exception of `body` on any of them.
void parallel(int threads, const std::function<void(int, int)>& body);

// Calls body(share, begin, end) for as many shares of [0, size) as threads are asked for. With
// fewer threads, one does the work of several: the shares are the same.
template <typename F> void for_shares(int64_t size, int threads, const F& body) {
    parallel(threads, [&](int thread, int count) {
        for (int share = thread; share < threads; share += count)
            body(share, size * share / threads, size * (share + 1) / threads);
    });
}

} // namespace maskedconv
