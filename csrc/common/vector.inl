// Vectors of kWidth floats, as many as a register of the instruction set holds: the source that is
// compiled for it sets kWidth before it includes this.
#pragma once

#include <cstring>

namespace maskedconv {
namespace {

typedef float Vector __attribute__((vector_size(kWidth * sizeof(float))));

// V is Vector, or float for what is left over.
template <typename V = Vector> V load(const float* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <typename V> void store(float* p, V v) { std::memcpy(p, &v, sizeof v); }

} // namespace
} // namespace maskedconv
