// BatchNorm and ReLU on CUDA: statistics, forward and backward. Arithmetic in float32; sums in a
// fixed order, so that a result repeats to the bit on one kind of GPU. Strides are in elements.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace maskedconv {

// [pixels, channels]; the channels of a pixel lie side by side, pixels `pitch` elements apart.
struct Pixels {
    void* data;
    int64_t pitch;
};

// A thread's step past the last pixel stays within 32 bits: a grid has up to 8 blocks of 256
// threads for each multiprocessor.
constexpr int64_t kMostMultiprocessors = 8192;
constexpr int64_t kMostNormPixels = (int64_t{1} << 31) - kMostMultiprocessors * 8 * 256;

struct NormShape {
    int64_t pixels;
    int channels;
    ElementType type;
};

// Statistics of each channel, [5, channels] with rows `pitch` elements apart: mean, biased
// variance, 1 / sqrt(variance + eps), scale and shift; x * scale + shift is the normalised input.
struct NormStatistics {
    float* data;
    int64_t pitch;
};

// A BatchNorm in training. Null: no weight, no bias, no running statistics.
struct NormParameters {
    const float *weight, *bias;
    float *running_mean, *running_var;
    int64_t* batches; // one more is counted unless momentum is negative
    float momentum;   // negative: 1 / *batches
    float eps;
};

// Workspace of the kernels that add up, of bn_relu_cuda_workspace elements. The counters may have
// any values: they are set to 0 before a launch.
struct NormWorkspace {
    float* sums;
    unsigned* counters;
    int multiprocessors;
};

// The elements of `sums` and of `counters`.
Two bn_relu_cuda_workspace(const NormShape& shape, int multiprocessors);

// The functions below launch on `stream` (a cudaStream_t) of the current device; they throw
// std::runtime_error.

// A sum that takes the place of x: total = x + summand is written. Null: x itself.
struct NormSum {
    Pixels summand, total;
};

// One launch: statistics of x, and the running statistics moved by them.
void bn_statistics_cuda(const NormShape& shape, const Pixels& x, const NormSum& sum,
                        const NormParameters& parameters, const NormStatistics& statistics,
                        const NormWorkspace& workspace, uintptr_t stream);

// The same from known moments: `moments` has two rows, mean and biased variance.
void bn_statistics_of_moments_cuda(const NormShape& shape, const NormStatistics& moments,
                                   const NormParameters& parameters,
                                   const NormStatistics& statistics, uintptr_t stream);

// out = relu(x * scale + shift).
void bn_relu_cuda(const NormShape& shape, const Pixels& x, const NormStatistics& statistics,
                  const Pixels& out, int multiprocessors, uintptr_t stream);

// The gradients of relu(bn(x)) from `grad`, the result's gradient. Null is not computed.
struct NormGradients {
    Pixels grad_x; // may be `grad`
    Pixels added;  // to grad_x, which it may be; null adds nothing
    float *grad_weight, *grad_bias;
    bool uses_batch_stats; // the statistics are computed from x, and the gradient goes through them
    float* coefficients;   // [2, channels], written and read
};

// One launch for the sums over all pixels if they are needed, one for grad_x.
void bn_relu_backward_cuda(const NormShape& shape, const Pixels& x, const Pixels& grad,
                           const NormStatistics& statistics, const NormGradients& gradients,
                           const NormWorkspace& workspace, uintptr_t stream);

} // namespace maskedconv
