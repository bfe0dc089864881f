// Compiled with -mavx512f -mavx512bw -mavx512bf16: a lane adds up the products of two pixels.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad/tile.inl"

#include <immintrin.h>

namespace maskedconv {
namespace {

typedef uint16_t Indices __attribute__((vector_size(64)));

// Number i of the lower half, number i of the upper half.
constexpr Indices kPairs = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};

// Sums and factors are floats here, too; but numbers below 2^-126 count as zeros.
struct PairProducts {
    using Element = Bfloat16;
    using Operand = __m512i; // of 16 channels: a pixel's in the lower halves, the next pixel's
    static constexpr int kPixels = 2;
    using Pair = std::integral_constant<int, 2>;
    using Single = std::integral_constant<int, 1>;

    template <bool> static __m512i load(Pair, const Bfloat16* x, int64_t pitch) {
        return interleaved(halves(x), halves(x + pitch));
    }

    // The last pixel of a row, and nothing.
    template <bool> static __m512i load(Single, const Bfloat16* x, int64_t) {
        return _mm512_maskz_cvtepu16_epi32(0xffff, halves(x));
    }

    static void add(Pair, Vector& sum, __m512i x, const float* grad) {
        add_products(sum, x, bits_of(grad));
    }

    // The gradient of the next pixel, which is not one of this row's, may be infinite.
    static void add(Single, Vector& sum, __m512i x, const float* grad) {
        add_products(sum, x, bits_of(grad) & 0xffff);
    }

  private:
    static __m256i halves(const Bfloat16* x) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x));
    }

    static __m512i interleaved(__m256i low, __m256i high) {
        constexpr __mmask8 kAll = 0xff; // gcc warns of the unmasked forms
        const __m512i both = _mm512_maskz_inserti64x4(kAll, _mm512_castsi256_si512(low), high, 1);
        return _mm512_maskz_permutexvar_epi16(~__mmask32(), (__m512i)kPairs, both);
    }

    static int bits_of(const float* pair) {
        int bits;
        std::memcpy(&bits, pair, sizeof bits);
        return bits;
    }

    static void add_products(Vector& sum, __m512i x, int grad) {
        const __m512i everywhere = _mm512_set1_epi32(grad);
        sum = (Vector)_mm512_dpbf16_ps((__m512)sum, (__m512bh)x, (__m512bh)everywhere);
    }
};

} // namespace

void tile_of_pairs(const TileInput<Bfloat16>& input) { tile<PairProducts>(input); }

} // namespace maskedconv
