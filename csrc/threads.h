// A parallel loop on the OpenMP runtime that PyTorch already has in the process.
//
// A second pool of threads would compete with PyTorch's, which spin for a while after each
// operator. The runtime is looked up at run time, so nothing is linked against it.
#pragma once

#include <functional>

namespace maskedconv {

// Calls body(thread, threads) once on each of at most `threads` threads, with the number of threads
// that there really are; on the calling thread alone where no OpenMP runtime is loaded. `body` must
// not throw.
void parallel(int threads, const std::function<void(int, int)>& body);

} // namespace maskedconv
