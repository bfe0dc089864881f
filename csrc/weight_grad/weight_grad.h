// weight_grad on the CPU: gradient of the first filters of a convolution, and of no others.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace maskedconv {

// Quotients rounded down and up; b is positive.
constexpr int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
constexpr int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

struct Pair {
    int64_t rows;
    int64_t columns;
};

// All strides are in elements. Channels of x lie side by side; a pixel may have any pitch, so that
// a view of the first channels of a wider tensor needs no copy.
struct WeightGrad {
    ElementType type; // of x and grad_output
    const void* x;
    int64_t x_image, x_row, x_pixel;
    const void* grad_output;
    int64_t grad_image, grad_channel, grad_row, grad_pixel;
    int64_t batch, channels, filters;
    Pair input, output, kernel, stride, padding, dilation; // sizes in pixels
    // Prologue: x is read as relu(x * scale[c] + shift[c]); null for none.
    const float* scale;
    const float* shift;
    // [filters, kernel.rows, kernel.columns, channels], every element written.
    float* out;
};

// Images are divided among the threads in order, each thread adds up its own pixels in memory order
// (hundreds in single precision, these sums in double), and the threads' sums are added in their
// order: the same result each time for the same number of threads. A value that is not finite
// reaches the elements that it is a factor of, and no others.
//
// Returns whether it was computed again, because an element was not finite.
bool weight_grad_cpu(const WeightGrad& problem, int threads);

} // namespace maskedconv
