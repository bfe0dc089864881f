// Compiled with -mavx512f -mavx512bw -mavx512bf16: a lane adds up the products of two pixels.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad/tile.inl"

#include "weight_grad/pairs.inl"

namespace maskedconv {
namespace {

// Sums and factors are floats here, too; but numbers below 2^-126 count as zeros.
struct PairProducts {
    using Element = Bfloat16;
    using Operand = __m512i; // of 16 channels: a pixel's in the lower halves, the next pixel's
    static constexpr int kPixels = 2;
    using Pair = std::integral_constant<int, 2>;
    using Single = std::integral_constant<int, 1>;

    template <bool> static __m512i load(Pair, const Bfloat16* x, int64_t pitch) {
        return two_pixels(x, pitch);
    }

    // The last pixel of a row, and nothing.
    template <bool> static __m512i load(Single, const Bfloat16* x, int64_t) { return one_pixel(x); }

    static void add(Pair, Vector& sum, __m512i x, const float* grad) {
        add_products(sum, x, bits_of(grad));
    }

    // The gradient of the next pixel, which is not one of this row's, may be infinite.
    static void add(Single, Vector& sum, __m512i x, const float* grad) {
        add_products(sum, x, bits_of(grad) & 0xffff);
    }

  private:
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

// How far to prefetch: the pixels' other channels lie between.
constexpr int64_t kPixelsAhead = 64;

// Pairs the channels in `mask`, at most 16.
void pair_channels(Pixels<const Bfloat16> from, Pixels<float> to, int64_t pixels, __mmask32 mask) {
    const auto load = [&](const Bfloat16* x) {
        const __m512i loaded = _mm512_maskz_loadu_epi16(mask, x);
        const __m256i halves = _mm512_maskz_extracti64x4_epi64(0xf, loaded, 0);
        return _mm512_maskz_cvtepu16_epi32(0xffff, halves);
    };
    const auto store = [&](__m512i pixel, __m512i next) {
        const __m512i upper = _mm512_maskz_slli_epi32(0xffff, next, 16);
        const __m512i pair = _mm512_or_si512(pixel, upper);
        _mm512_mask_storeu_epi32(to.first, static_cast<__mmask16>(mask), pair);
    };
    __m512i pixel = load(from.first);
    for (; pixels > 1; --pixels, to.first += to.pitch) {
        __builtin_prefetch(from.first + kPixelsAhead * from.pitch);
        from.first += from.pitch;
        const __m512i next = load(from.first);
        store(pixel, next);
        pixel = next;
    }
    store(pixel, __m512i{});
}

void pair_one_channel(Pixels<const Bfloat16> from, Pixels<float> to, int64_t pixels) {
    uint32_t pixel = from.first->bits;
    for (; pixels > 0; --pixels, to.first += to.pitch) {
        __builtin_prefetch(from.first + kPixelsAhead * from.pitch);
        from.first += from.pitch;
        const uint32_t next = pixels > 1 ? from.first->bits : 0;
        const uint32_t pair = pixel | next << 16;
        std::memcpy(to.first, &pair, sizeof pair);
        pixel = next;
    }
}

} // namespace

void tile_of_pairs(const TileInput<Bfloat16>& input) { tile<PairProducts>(input); }

void pair_pixels(Pixels<const Bfloat16> from, Pixels<float> to, int64_t pixels, int64_t channels) {
    if (channels == 1)
        return pair_one_channel(from, to, pixels);
    for (int64_t channel = 0; channel < channels; channel += kLane) {
        const int64_t count = channels - channel;
        const __mmask32 mask = count < kLane ? (1u << count) - 1 : 0xffffu;
        pair_channels({from.first + channel, from.pitch}, {to.first + channel, to.pitch}, pixels,
                      mask);
    }
}

} // namespace maskedconv
