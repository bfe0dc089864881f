// The inner loops of bn_relu, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "common/halves.h"
#include "common/isa.h"

namespace maskedconv {

// The first `channels` of pixels that lie x_pixel apart: relu(x * scale + shift), and its backward.
// As in PyTorch, NaN passes the ReLU, and a gradient of NaN is 0 if the ReLU is closed.
template <typename T> struct NormInput {
    const T* x;
    int64_t x_pixel;
    int64_t pixels, channels;
    const float *scale, *shift; // of each channel
};

// The gradient of x, its pixels `pixel` apart, and a tensor that is added to it, or null.
template <typename T> struct GradX {
    T* first;
    int64_t pixel;
    const T* added; // may be `first`
    int64_t added_pixel;
};

// The first `channels` of pixels that lie x_pixel apart. If there is a summand, the values are
// x + summand, rounded to T, and are written to `total`.
template <typename T> struct MomentsInput {
    const T* x;
    int64_t x_pixel;
    int64_t pixels, channels;
    const T* summand; // or null
    int64_t summand_pixel;
    T* total;
    int64_t total_pixel;
};

// Tensors are of type T, sums and products float.
template <typename T> struct BnReluPasses {
    // Writes the values of the first pixel to `pivot`; adds value - pivot to sums[0][channel], and
    // its square to sums[1][channel].
    void (*sum_moments)(const MomentsInput<T>&, float* pivot, float* sums);
    // `out` may be x, with the same pitch.
    void (*activate)(const NormInput<T>&, T* out, int64_t out_pixel);
    // The same numbers, rounded to T, as floats.
    void (*activate_to_float)(const NormInput<T>&, float* out, int64_t out_pixel);
    // The gradient is [pixel][channel]; adds the gradient past the ReLU to sums[0][channel], and
    // the same times (x - mean) to sums[1][channel].
    void (*sum_gradient)(const NormInput<T>&, const T* grad, const float* mean, float* sums);
    // grad_x = (gradient past the ReLU - (x - mean) * factor - offset) * scale; without factor and
    // offset if `factor` is null. grad_x may be `grad`, unless `grad` is added.
    void (*input_gradient)(const NormInput<T>&, const T* grad, const float* mean,
                           const float* factor, const float* offset, GradX<T> grad_x);
};

struct BnReluLoops {
    Isa isa;
    BnReluPasses<float> float32;
    BnReluPasses<Bfloat16> bfloat16;
    BnReluPasses<Float16> float16;
};

extern const BnReluLoops kBnReluAvx512;
extern const BnReluLoops kBnReluAvx2;
extern const BnReluLoops kBnReluGeneric;

// The passes for chosen_isa(); throws its errors.
template <typename T> const BnReluPasses<T>& bn_relu_passes();

} // namespace maskedconv
