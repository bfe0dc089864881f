// The inner loops, compiled once for each instruction set.
#pragma once

#include <cstdint>

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

// The first `channels` of pixels that lie x_pixel apart: relu(x * scale + shift), and its backward.
struct NormInput {
    const float* x;
    int64_t x_pixel;
    int64_t pixels, channels;
    const float *scale, *shift; // of each channel
};

struct Kernels {
    const char* isa;
    void (*tile)(const TileInput&);
    // `out` may be x, with the same pitch.
    void (*activate)(const NormInput&, float* out, int64_t out_pixel);
    // The gradient is [pixel][channel]; adds to sums[0][channel] what of it passes the ReLU, and to
    // sums[1][channel] the same times (x - mean).
    void (*sum_gradient)(const NormInput&, const float* grad, const float* mean, float* sums);
    // out = what passes the ReLU * scale + (x - mean) * factor + offset; `out` may be the gradient.
    void (*input_gradient)(const NormInput&, const float* grad, const float* mean,
                           const float* factor, const float* offset, float* out);
};

extern const Kernels kAvx512;
extern const Kernels kAvx2;
extern const Kernels kGeneric;

// For the widest instruction set that this processor has.
const Kernels& best_kernels();

} // namespace maskedconv
