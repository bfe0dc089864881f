// The 16-bit element types of the kernels for the CPU.
#pragma once

#include <cstdint>

namespace maskedconv {

// The upper half of a float's bits.
struct Bfloat16 {
    uint16_t bits;
};

// IEEE half precision.
struct Float16 {
    uint16_t bits;
};

} // namespace maskedconv
