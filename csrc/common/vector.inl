// Vectors of kWidth floats, as many as a register of the instruction set holds: the source that is
// compiled for it sets kWidth before it includes this.
#pragma once

#include <cstdint>
#include <cstring>

namespace maskedconv {
namespace {

// kLanes floats side by side, and as many integers.
template <int kLanes> struct Lanes {
    typedef float Floats __attribute__((vector_size(kLanes * sizeof(float))));
    typedef uint32_t Bits __attribute__((vector_size(kLanes * sizeof(uint32_t))));
    typedef int32_t Integers __attribute__((vector_size(kLanes * sizeof(int32_t))));
    typedef uint16_t Halves __attribute__((vector_size(kLanes * sizeof(uint16_t))));
};

typedef Lanes<kWidth>::Floats Vector;

// V is Vector, a shorter one, or float for the rest.
template <typename V = Vector> V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V> void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

} // namespace
} // namespace maskedconv
