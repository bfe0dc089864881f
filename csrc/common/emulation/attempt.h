// How a library of emulated kernels reports errors; for one source file of each library.
#pragma once
#include <string>

#include "common/emulation/emulation.h"

namespace maskedconv {

inline std::string last_error;

// Runs with a schedule of that seed. 0: done; 1: see emulated_error.
template <typename Run> int attempt(unsigned seed, Run run) {
    try {
        seed_emulation(seed);
        run();
    } catch (const std::exception& error) {
        last_error = error.what();
        return 1;
    }
    return 0;
}

} // namespace maskedconv

extern "C" const char* emulated_error() { return maskedconv::last_error.c_str(); }
