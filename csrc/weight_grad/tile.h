// The inner loops of weight_grad on the CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "common/halves.h"
#include "common/isa.h"

namespace maskedconv {

// One tap row's products: for `rows` rows of `pixels` pixels of `images` images,
//   sum[j][c] += x[image, row, pixel, c] * grad[image, row, pixel, j].
// Channels come in groups of kLane, which lie `offsets` behind a pixel of x, anywhere.
//
// E is float, or Bfloat16 for instructions that multiply pairs of pixels. Then an element of `grad`
// is not a float but the Bfloat16 of a pixel in its lower half, of the next pixel in its upper
// half.
template <typename E> struct TileInput {
    const E* x;
    int64_t x_image, x_row, x_pixel;
    int64_t x_ahead; // elements from a pixel to the one to prefetch; 0 if x is in a cache
    const float* grad;
    int64_t grad_image, grad_row, grad_pixel;
    int64_t grad_ahead;
    int64_t images, rows, pixels;
    int64_t channels; // a multiple of kLane
    const int64_t* offsets;
    int64_t columns;
    float* sum; // [columns][channels]
};

constexpr int64_t kLane = 16; // channels are padded to this many elements

// Pixels of channels side by side, any number of elements from one to the next.
template <typename T> struct Pixels {
    T* first;
    int64_t pitch;
};

// Converts the first channels of so many pixels.
template <typename S>
using Widen = void (*)(Pixels<const S>, Pixels<float>, int64_t pixels, int64_t channels);

struct TileLoops {
    Isa isa;
    void (*tile)(const TileInput<float>&);
    Widen<Bfloat16> widen_bfloat16;
    Widen<Float16> widen_float16;
};

extern const TileLoops kTileAvx512;
extern const TileLoops kTileAvx2;
extern const TileLoops kTileGeneric;

// Loops for pairs. pair_pixels makes the gradient of a row, the last pixel's next one being 0.
void tile_of_pairs(const TileInput<Bfloat16>&);
void tile_amx(const TileInput<Bfloat16>&);
void tile_amx_emulated(const TileInput<Bfloat16>&);
void pair_pixels(Pixels<const Bfloat16>, Pixels<float>, int64_t pixels, int64_t channels);

} // namespace maskedconv
