// The element-wise passes of BatchNorm and ReLU on the CPU, channels side by side. T is float,
// Bfloat16 or Float16.
#pragma once

#include "bn_relu/loops.h"

namespace maskedconv {

// out = relu(x * scale + shift), [pixel][channel].
template <typename T> void bn_relu_cpu(const NormInput<T>& input, T* out, int threads);

// Backward of relu(bn(x)), with bn(x) = x * scale + shift.
template <typename T> struct NormBackward {
    const T* grad;     // of the result, [pixel][channel]
    const float* mean; // of each channel
    const float* inverse_deviation;
    bool of_batch; // mean and deviation are computed from x, so that the gradient goes through them
    // Null outputs are not computed.
    GradX<T> grad_x;
    float *grad_weight, *grad_bias;
};

// Sums in double precision, of each thread's pixels in order and then in the threads' order: the
// same result each time for the same number of threads.
template <typename T>
void bn_relu_backward_cpu(const NormInput<T>& input, const NormBackward<T>& backward, int threads);

} // namespace maskedconv
