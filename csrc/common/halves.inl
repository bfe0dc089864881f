// 16-bit floats in memory, vectors of float in registers. Rounding is to nearest, ties to even;
// NaN stays NaN. The source that includes this sets kWidth before.
#pragma once

#include <type_traits>

#include "common/halves.h"
#include "common/vector.inl"
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace maskedconv {
namespace {

// V is a vector or float, B is as many uint32_t.
template <typename V> constexpr bool kIsVector = sizeof(V) > sizeof(float);
template <typename V> using LanesOf = Lanes<static_cast<int>(sizeof(V) / sizeof(float))>;
template <typename V>
using BitsOf = std::conditional_t<kIsVector<V>, typename LanesOf<V>::Bits, uint32_t>;
template <typename B>
using ValuesOf = std::conditional_t<kIsVector<B>, typename LanesOf<B>::Floats, float>;

template <typename V> BitsOf<V> bits_of(V value) {
    BitsOf<V> bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

template <typename B> ValuesOf<B> value_of(B bits) {
    ValuesOf<B> value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <typename B> B load_bits(const uint16_t* p) {
    if constexpr (kIsVector<B>) {
        typename LanesOf<B>::Halves halves;
        std::memcpy(&halves, p, sizeof halves);
        return __builtin_convertvector(halves, B);
    } else {
        return *p;
    }
}

template <typename B> void store_bits(uint16_t* p, B bits) {
    if constexpr (kIsVector<B>) {
        using Halves = typename LanesOf<B>::Halves;
        const Halves halves = __builtin_convertvector(bits, Halves);
        std::memcpy(p, &halves, sizeof halves);
    } else {
        *p = static_cast<uint16_t>(bits);
    }
}

// gcc makes several instructions of the conversions above.
#if defined(__AVX2__)
template <> [[maybe_unused]] Lanes<8>::Bits load_bits<Lanes<8>::Bits>(const uint16_t* p) {
    return (Lanes<8>::Bits)_mm256_cvtepu16_epi32(
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
#endif
#if defined(__AVX512F__)
constexpr __mmask16 kAllLanes = 0xffff; // gcc warns of the unmasked forms
template <> [[maybe_unused]] Lanes<16>::Bits load_bits<Lanes<16>::Bits>(const uint16_t* p) {
    return (Lanes<16>::Bits)_mm512_maskz_cvtepu16_epi32(
        kAllLanes, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <> [[maybe_unused]] void store_bits(uint16_t* p, Lanes<16>::Bits bits) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_maskz_cvtepi32_epi16(kAllLanes, (__m512i)bits));
}
#endif

// Rounds away the last `count` bits.
template <typename B> B without_last(B bits, int count) {
    const uint32_t below_half = (1u << (count - 1)) - 1;
    return (bits + below_half + ((bits >> count) & 1)) >> count;
}

template <typename B> ValuesOf<B> widened(Bfloat16, B bits) { return value_of<B>(bits << 16); }

template <typename V> BitsOf<V> narrowed(Bfloat16, V value) {
    using B = BitsOf<V>;
    const B nan = B{} + 0x7fc0u;
    return value != value ? nan : without_last(bits_of(value), 16);
}

// The exponents' biases differ by 112.
constexpr uint32_t kBias = 112u << 23;

template <typename B> ValuesOf<B> as_numbers(B bits) {
    if constexpr (kIsVector<B>)
        return __builtin_convertvector((typename LanesOf<B>::Integers)bits, ValuesOf<B>);
    else
        return static_cast<float>(bits);
}

template <typename B> ValuesOf<B> widened(Float16, B bits) {
    const B exponent = bits & 0x7c00u, magnitude = (bits & 0x7fffu) << 13;
    const B subnormal = bits_of(as_numbers<B>(bits & 0x3ffu) * 0x1p-24f);
    const B infinite = magnitude + 2 * kBias;
    const B wide = exponent == 0u ? subnormal : exponent == 0x7c00u ? infinite : magnitude + kBias;
    return value_of<B>(wide | (bits & 0x8000u) << 16);
}

template <typename V> BitsOf<V> narrowed(Float16, V value) {
    using B = BitsOf<V>;
    const B bits = bits_of(value), magnitude = bits & 0x7fffffffu;
    const B infinite = B{} + 0x7c00u, nan = B{} + 0x7e00u;
    // The last bits of numbers from .5 on are worth 2^-24, as in subnormal halves.
    const B subnormal = bits_of(value_of<B>(magnitude) + 0.5f) - 0x3f000000u;
    const B normal = without_last<B>(magnitude - kBias, 13);
    const B finite = magnitude < (113u << 23) ? subnormal : normal;
    const B nearest = magnitude < (143u << 23) ? finite : infinite;
    return (value != value ? nan : nearest) | ((bits >> 16) & 0x8000u);
}

// Float16 by the instructions for it, and anything else by its bits.
template <typename V, typename T> V load_half(const T* p) {
    return widened(T(), load_bits<BitsOf<V>>(&p->bits));
}
template <typename V, typename T> void store_half(T* p, V value) {
    store_bits(&p->bits, narrowed(T(), value));
}
#if defined(__AVX512F__)
template <> [[maybe_unused]] Vector load_half<Vector>(const Float16* p) {
    return (Vector)_mm512_maskz_cvtph_ps(kAllLanes,
                                         _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <> [[maybe_unused]] void store_half(Float16* p, Vector value) {
    const __m256i halves =
        _mm512_maskz_cvtps_ph(kAllLanes, (__m512)value, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
}
#elif defined(__F16C__)
template <> [[maybe_unused]] Vector load_half<Vector>(const Float16* p) {
    return (Vector)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
template <> [[maybe_unused]] void store_half(Float16* p, Vector value) {
    const __m128i halves = _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
}
#endif

template <typename V> V load(const Bfloat16* p) { return load_half<V>(p); }
template <typename V> V load(const Float16* p) { return load_half<V>(p); }
template <typename V> void store(Bfloat16* p, V value) { store_half(p, value); }
template <typename V> void store(Float16* p, V value) { store_half(p, value); }

// The value rounded to T.
template <typename T, typename V> V rounded_to(V value) {
    if constexpr (std::is_same_v<T, float>)
        return value;
    else
        return widened(T(), narrowed(T(), value));
}

} // namespace
} // namespace maskedconv
