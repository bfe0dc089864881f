// The statistics of a BatchNorm in training, on the CPU.
#pragma once

#include "bn_relu/loops.h"

namespace maskedconv {

// Parameters and running statistics of a BatchNorm. All except eps and momentum may be null.
struct NormState {
    const float *weight, *bias;        // of each channel
    float *running_mean, *running_var; // both or neither
    int64_t* batches;                  // how many there were
    float momentum;                    // negative: the mean over all batches
    float eps;
};

// Rows of `channels` floats, `row` apart: mean, biased variance, 1 / sqrt(variance + eps), and
// scale and shift of bn(x) = x * scale + shift.
struct NormTable {
    float* mean;
    int64_t row;
};

// Writes mean and biased variance of each channel. Sums in double precision, of each thread's
// pixels in order and then in the threads' order. At least one pixel.
template <typename T>
void batch_moments_cpu(const MomentsInput<T>& input, NormTable table, int threads);

// Writes the other rows from the first two, and moves the state by them as moments of `pixels`.
void bn_statistics_of_moments_cpu(int64_t pixels, int64_t channels, const NormState& state,
                                  NormTable table);

} // namespace maskedconv
