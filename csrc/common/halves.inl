// Loads and stores of the 16-bit types, as vectors of floats or one by one. Included like
// vector.inl; nothing depends on instructions that convert.
#pragma once

#include "common/halves.h"
#include "common/vector.inl"

namespace maskedconv {
namespace {

typedef uint32_t Bits __attribute__((vector_size(kWidth * sizeof(uint32_t))));
typedef uint16_t Halves __attribute__((vector_size(kWidth * sizeof(uint16_t))));

// The integers of V's size: Bits of Vector, uint32_t of float.
template <typename V> struct BitsOf {
    using Type = Bits;
};
template <> struct BitsOf<float> {
    using Type = uint32_t;
};

template <typename V> typename BitsOf<V>::Type to_bits(V value) {
    typename BitsOf<V>::Type bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <typename V> V from_bits(typename BitsOf<V>::Type bits) {
    V value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t widened(const uint16_t* p, uint32_t) { return *p; }
inline Bits widened(const uint16_t* p, Bits) {
    Halves halves;
    std::memcpy(&halves, p, sizeof halves);
    return __builtin_convertvector(halves, Bits);
}

inline void store_narrowed(uint16_t* p, uint32_t bits) { *p = static_cast<uint16_t>(bits); }
inline void store_narrowed(uint16_t* p, Bits bits) {
    const Halves halves = __builtin_convertvector(bits, Halves);
    std::memcpy(p, &halves, sizeof halves);
}

template <typename V> V load(const Bfloat16* p) {
    return from_bits<V>(widened(&p->bits, typename BitsOf<V>::Type()) << 16);
}

// To the nearest, of two as near to the even one; NaN stays NaN.
template <typename V> void store(Bfloat16* p, V value) {
    const auto bits = to_bits(value);
    const auto nearest = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    store_narrowed(&p->bits, value != value ? nearest * 0 + 0x7fc0 : nearest);
}

constexpr int kHalfBias = 112; // of a float's exponent above that of a half
constexpr int kHalfShift = 13; // bits that a float's mantissa has more

template <typename V> V load(const Float16* p) {
    using B = typename BitsOf<V>::Type;
    const B half = widened(&p->bits, B());
    const B magnitude = (half & 0x7fff) << kHalfShift;
    const B normal = magnitude + (kHalfBias << 23);
    const B smallest = magnitude * 0 + ((kHalfBias + 1) << 23); // 2^-14, what subnormals count from
    const B subnormal = to_bits<V>(from_bits<V>(magnitude + smallest) - from_bits<V>(smallest));
    const B unbounded = normal + (kHalfBias << 23); // infinity and NaN
    const B finite = magnitude < (1 << 23) ? subnormal : normal;
    const B value = magnitude >= (31 << 23) ? unbounded : finite;
    return from_bits<V>(value | (half & 0x8000) << 16);
}

// Rounded as above; what exceeds the largest half becomes infinity.
template <typename V> void store(Float16* p, V value) {
    using B = typename BitsOf<V>::Type;
    const B bits = to_bits(value);
    const B magnitude = bits & 0x7fffffff;
    // Adding 0.5 rounds to multiples of 2^-24, the unit of subnormal halves.
    const V half = from_bits<V>(magnitude * 0 + 0x3f000000);
    const B subnormal = to_bits<V>(from_bits<V>(magnitude) + half) - 0x3f000000;
    const B odd = (magnitude >> kHalfShift) & 1;
    const B normal = (magnitude - (kHalfBias << 23) + 0xfff + odd) >> kHalfShift;
    const B infinity = magnitude * 0 + 0x7c00;
    const B large = magnitude > 0x7f800000 ? infinity + 0x200 : infinity;
    const B finite = magnitude < ((kHalfBias + 1) << 23) ? subnormal : normal;
    const B result = magnitude >= ((kHalfBias + 31) << 23) ? large : finite;
    store_narrowed(&p->bits, result | ((bits >> 16) & 0x8000));
}

} // namespace
} // namespace maskedconv
