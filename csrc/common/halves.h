// The 16-bit floats, as numbers of bits. halves.inl makes them vectors of float.
#pragma once

#include <cstdint>

namespace maskedconv {

// The upper half of a float's bits.
struct Bfloat16 {
    uint16_t bits;
};

// IEEE 754: 5 bits of exponent, 10 of mantissa.
struct Float16 {
    uint16_t bits;
};

} // namespace maskedconv
