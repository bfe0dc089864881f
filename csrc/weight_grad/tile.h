// The inner loop of weight_grad on the CPU, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "bn_relu/loops.h"
#include "common/isa.h"

namespace maskedconv {

// One tap row's products: for `rows` rows of `pixels` pixels of `images` images,
//   sum[j][c] += x[image, row, pixel, c] * grad[image, row, pixel, j].
// Channels come in groups of kLane, which lie `offsets` behind a pixel of x, anywhere.
struct TileInput {
    const float* x;
    int64_t x_image, x_row, x_pixel;
    int64_t x_ahead; // floats from a pixel to the one to prefetch; 0 for what is in a cache
    const float* grad;
    int64_t grad_image, grad_row, grad_pixel;
    int64_t grad_ahead;
    int64_t images, rows, pixels;
    int64_t channels; // a multiple of kLane
    const int64_t* offsets;
    int64_t columns;
    float* sum; // [columns][channels]
};

constexpr int64_t kLane = 16; // channels are padded to this many floats

struct TileLoops {
    Isa isa;
    void (*tile)(const TileInput&);
};

extern const TileLoops kTileAvx512;
extern const TileLoops kTileAvx2;
extern const TileLoops kTileGeneric;

// What an algorithm calls; the prologue is the activation of bn_relu.
struct Loops {
    decltype(TileLoops::tile) tile;
    decltype(BnReluPasses<float>::activate) activate;
};

} // namespace maskedconv
