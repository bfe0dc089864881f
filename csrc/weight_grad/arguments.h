// weight_grad's arguments from Python: checked, and converted for the kernels.
#pragma once

#include <string>

#include "common.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

inline int64_t output_size(int64_t input, int64_t kernel, int64_t stride, int64_t padding,
                           int64_t dilation) {
    const int64_t room = input + 2 * padding - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
}

// Only sizes. `shape` is the filters', [n, C, kH, kW]; x is [N, C, H, W].
inline WeightGrad weight_grad_sizes(const Checks& checks, Four x_shape, Four shape, Two stride,
                                    Two padding, Two dilation) {
    for (size_t dim = 0; dim < 4; ++dim) {
        checks.between("a size of x", x_shape[dim], 0);
        checks.between("a size of the filters", shape[dim], dim < 2 ? 0 : 1);
    }
    checks.equal("the filters' number of channels", shape[1], x_shape[1]);
    for (size_t i = 0; i < 2; ++i) {
        checks.between("stride", stride[i], 1);
        checks.between("padding", padding[i], 0);
        checks.between("dilation", dilation[i], 1);
    }
    WeightGrad p{};
    p.batch = x_shape[0], p.channels = x_shape[1], p.filters = shape[0];
    p.input = {x_shape[2], x_shape[3]}, p.kernel = {shape[2], shape[3]};
    p.stride = {stride[0], stride[1]}, p.padding = {padding[0], padding[1]};
    p.dilation = {dilation[0], dilation[1]};
    p.output = {output_size(x_shape[2], shape[2], stride[0], padding[0], dilation[0]),
                output_size(x_shape[3], shape[3], stride[1], padding[1], dilation[1])};
    return p;
}

// The kernels of a GPU divide the pixels among tiles: there must be some.
inline void check_not_empty(const Checks& checks, const WeightGrad& p) {
    for (const int64_t size : {p.batch, p.channels, p.filters, p.input.rows, p.input.columns,
                               p.output.rows, p.output.columns})
        if (size == 0)
            checks.refuse("there is nothing to add up");
}

// Shapes and strides are the tensors'; filters are the first channels of `grad`, [N, O, Ho, Wo].
inline void set_operands(const Checks& checks, WeightGrad& p, uintptr_t x, Four x_shape,
                         Four x_strides, uintptr_t grad, Four grad_shape, Four grad_strides) {
    const int64_t elements = checks.tensor("x", x, x_shape, x_strides);
    if (x_strides[1] != 1 && x_shape[1] > 1 && elements > 0)
        checks.refuse("the channels of x lie " + std::to_string(x_strides[1]) +
                      " elements apart; expected them side by side");
    checks.tensor("grad", grad, grad_shape, grad_strides);
    checks.equal("the number of images of grad", grad_shape[0], p.batch);
    checks.between("the number of channels of grad", grad_shape[1], p.filters);
    checks.equal("the number of rows of grad", grad_shape[2], p.output.rows);
    checks.equal("the number of columns of grad", grad_shape[3], p.output.columns);
    p.x = reinterpret_cast<const void*>(x);
    p.x_image = x_strides[0], p.x_row = x_strides[2], p.x_pixel = x_strides[3];
    p.grad_output = reinterpret_cast<const void*>(grad);
    p.grad_image = grad_strides[0], p.grad_channel = grad_strides[1];
    p.grad_row = grad_strides[2], p.grad_pixel = grad_strides[3];
}

inline WeightGrad weight_grad_problem(const Checks& checks, uintptr_t x, Four x_shape,
                                      Four x_strides, uintptr_t grad, Four grad_shape,
                                      Four grad_strides, Four shape, Two stride, Two padding,
                                      Two dilation, uintptr_t scale, uintptr_t shift,
                                      uintptr_t out) {
    WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    set_operands(checks, p, x, x_shape, x_strides, grad, grad_shape, grad_strides);
    checks.tensor("out", out, shape, {});
    if (scale != 0 || shift != 0) {
        checks.memory("scale", scale, p.channels);
        checks.memory("shift", shift, p.channels);
    }
    p.scale = reinterpret_cast<const float*>(scale);
    p.shift = reinterpret_cast<const float*>(shift);
    p.out = reinterpret_cast<float*>(out);
    return p;
}

} // namespace maskedconv
