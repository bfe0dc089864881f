// How wgmma's descriptors locate an operand in shared memory, and how TMA swizzles it.
// Arithmetic alone, no CUDA.
//
// PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions": "Matrix Descriptor Format" (the
// bits), "Shared Memory Matrix Layout" and "Strides" (meaning of both offsets), in the form that
// is MN-major and not swizzled ("Interleave"). There a core matrix is 8 (k) x 8 (m or n) 16-bit
// elements in 128 bytes: 8 rows of 16 bytes, one for each k. The leading dimension byte offset goes
// from 8 of k to the next 8 (in the words of "Strides": from the first 8 columns to the next), the
// stride dimension byte offset from 8 of m or n to the next 8. CUTLASS builds its descriptors of
// this form alike (cute/atom/mma_traits_sm90_gmma.hpp). Nothing says that core matrices may not
// overlap.
//
// The other form is MN-major with 128 bytes swizzled, as TMA writes them: 64 elements of m or n
// beside each other, a row of 128 bytes for each k. There the leading offset goes from 64 of m or n
// to the next 64 and the stride offset from 8 of k to the next 8: "Canonical Layouts".
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define MASKEDCONV_BOTH __host__ __device__ __forceinline__
#else
#define MASKEDCONV_BOTH inline
#endif

namespace maskedconv {

constexpr int kCoreRowBytes = 16;            // 8 elements of m or n of one k
constexpr int kCoreMatrixBytes = 128;        // 8 rows side by side
constexpr int kSwizzledRowBytes = 128;       // 64 elements of m or n of one k
constexpr uint32_t kMostDescribed = 0x3ffff; // bytes: 14 bits of 16 each

// An operand, in bytes of shared memory; all multiples of 16 up to kMostDescribed.
struct MatrixPlace {
    uint32_t start, k_step, mn_step;
};

MASKEDCONV_BOTH constexpr uint64_t encode_offset(uint32_t bytes) {
    return (bytes & kMostDescribed) >> 4;
}

// Bits 0 to 13 start, 16 to 29 leading, 32 to 45 stride; base offset (49 to 51) and swizzling mode
// (62 and 63) are 0.
MASKEDCONV_BOTH constexpr uint64_t matrix_descriptor(const MatrixPlace& place) {
    return encode_offset(place.start) | encode_offset(place.k_step) << 16 |
           encode_offset(place.mn_step) << 32;
}

// The operand begins at a multiple of 1024 bytes. Mode 1 of bits 62 and 63: 128 bytes are swizzled.
MASKEDCONV_BOTH constexpr uint64_t swizzled_descriptor(const MatrixPlace& place) {
    return encode_offset(place.start) | encode_offset(place.mn_step) << 16 |
           encode_offset(place.k_step) << 32 | uint64_t{1} << 62;
}

// Address of element [k][mn] of the operand; `k_step` and `mn_step` are from 8 to the next 8.
MASKEDCONV_BOTH constexpr uint32_t element_address(const MatrixPlace& place, int k, int mn) {
    return place.start + static_cast<uint32_t>(k / 8) * place.k_step +
           static_cast<uint32_t>(mn / 8) * place.mn_step +
           static_cast<uint32_t>(k % 8) * kCoreRowBytes + static_cast<uint32_t>(mn % 8) * 2;
}

// Each 128 bytes have 8 chunks of 16. Chunk c of the r-th 128 bytes (of 1024 that are aligned to
// their size) lies in place of chunk c ^ r: PTX ISA, "Swizzling Modes", 128 bytes.
MASKEDCONV_BOTH constexpr uint32_t swizzle128(uint32_t address) {
    return address ^ (address >> 3 & 0x70);
}

// Address of element [k][mn] of a swizzled operand; `mn_step` is from 64 to the next 64.
MASKEDCONV_BOTH constexpr uint32_t swizzled_address(const MatrixPlace& place, int k, int mn) {
    return swizzle128(place.start + static_cast<uint32_t>(k / 8) * place.k_step +
                      static_cast<uint32_t>(mn / 64) * place.mn_step +
                      static_cast<uint32_t>(k % 8) * kSwizzledRowBytes +
                      static_cast<uint32_t>(mn % 64) * 2);
}

} // namespace maskedconv
