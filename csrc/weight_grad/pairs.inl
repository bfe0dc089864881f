// Pairs of pixels of bfloat16 in the 32-bit lanes of AVX-512 registers, by AVX512BW.
#include <immintrin.h>

#include "common/halves.h"

namespace maskedconv {
namespace {

typedef uint16_t Indices __attribute__((vector_size(64)));

// Number i of the lower half, number i of the upper half.
constexpr Indices kPairs = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

inline __m256i halves_at(const Bfloat16* x) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
}

// 16 channels: a pixel's in the lower halves, the next pixel's in the upper ones.
inline __m512i two_pixels(const Bfloat16* x, int64_t pitch) {
    constexpr __mmask8 kAll = 0xff; // gcc warns of the unmasked forms
    const __m512i both = _mm512_maskz_inserti64x4(kAll, _mm512_castsi256_si512(halves_at(x)),
                                                  halves_at(x + pitch), 1);
    return _mm512_maskz_permutexvar_epi16(~__mmask32(), (__m512i)kPairs, both);
}

// The last pixel of a row, and nothing.
inline __m512i one_pixel(const Bfloat16* x) {
    return _mm512_maskz_cvtepu16_epi32(0xffff, halves_at(x));
}

} // namespace
} // namespace maskedconv
