// The inner loops, compiled once for each instruction set.
#pragma once

#include <cstdint>
#include <vector>

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
// As in PyTorch NaN passes the ReLU, and where that is closed a gradient of NaN is 0.
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
    // out = (what passes the ReLU - (x - mean) * factor - offset) * scale; without factor and
    // offset where `factor` is null. `out` may be the gradient.
    void (*input_gradient)(const NormInput&, const float* grad, const float* mean,
                           const float* factor, const float* offset, float* out);
};

extern const Kernels kAvx512;
extern const Kernels kAvx2;
extern const Kernels kGeneric;

// By instruction set, the narrowest first: those that are in this module, and those among them that
// this processor can run.
std::vector<const Kernels*> built_kernels();
std::vector<const Kernels*> available_kernels();

// Those that MASKEDCONV_ISA names, read at the first call; of the widest instruction set that there
// is where it is not set or empty. Throws std::invalid_argument where it names no instruction set,
// std::runtime_error where the module or the processor does not have it.
const Kernels& chosen_kernels();

} // namespace maskedconv
