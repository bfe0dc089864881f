// Problems of weight_grad as the tests hand them to an emulated kernel.
#pragma once

#include "weight_grad/weight_grad.h"

namespace maskedconv {

// `sizes`: batch, channels, filters, then (rows, columns) of input, output, kernel, stride, padding
// and dilation.
inline WeightGrad problem_of(const int64_t* sizes) {
    const auto pair = [&](int i) { return Pair{sizes[3 + 2 * i], sizes[4 + 2 * i]}; };
    WeightGrad p{};
    p.batch = sizes[0], p.channels = sizes[1], p.filters = sizes[2];
    p.input = pair(0), p.output = pair(1), p.kernel = pair(2);
    p.stride = pair(3), p.padding = pair(4), p.dilation = pair(5);
    return p;
}

// `x_strides`: image, row, pixel; `grad_strides`: image, channel, row, pixel.
inline WeightGrad problem_of(const int64_t* sizes, const void* x, const int64_t* x_strides,
                             const void* grad, const int64_t* grad_strides) {
    WeightGrad p = problem_of(sizes);
    p.x = x, p.x_image = x_strides[0], p.x_row = x_strides[1], p.x_pixel = x_strides[2];
    p.grad_output = grad;
    p.grad_image = grad_strides[0], p.grad_channel = grad_strides[1];
    p.grad_row = grad_strides[2], p.grad_pixel = grad_strides[3];
    return p;
}

} // namespace maskedconv
