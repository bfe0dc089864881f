// The last kernel of weight_grad: adds up the blocks' sums, and recomputes those not finite.
//
// The products before it have zeros for pixels that a tap does not meet, and 0 times a value that
// is not finite is NaN, in elements that the value is not a factor of. Such an element is added up
// again, without these zeros. If all sums are finite, this costs one comparison.
#pragma once

#include "weight_grad/cuda/fragments.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

struct FinishArguments {
    WeightGrad problem;
    const float* sums; // [splits, elements]; may be problem.out if there is one split
    int64_t elements;
    int splits, groups;
};

constexpr int kFinishThreads = 256;

// How many threads share an element, each of which adds up every so many-th split: one after the
// other, many splits of few elements would be read too slowly. A power of two.
constexpr int finish_groups(int splits) { return splits >= 32 ? 8 : splits >= 8 ? 2 : 1; }

// An element of the gradient: of one filter, tap and channel.
template <typename T> struct ExactElement {
    const WeightGrad& p;
    int64_t filter, row, column, channel;

    __device__ ExactElement(const WeightGrad& p, int64_t i) : p(p) {
        channel = i % p.channels;
        const int64_t tap = i / p.channels % (p.kernel.rows * p.kernel.columns);
        row = tap / p.kernel.columns * p.dilation.rows - p.padding.rows;
        column = tap % p.kernel.columns * p.dilation.columns - p.padding.columns;
        filter = i / p.channels / (p.kernel.rows * p.kernel.columns);
    }

    __device__ float x_at(int64_t image, int64_t y, int64_t x) const {
        const T* from =
            static_cast<const T*>(p.x) + image * p.x_image + y * p.x_row + x * p.x_pixel + channel;
        const float value = to_float32(*from);
        if (p.scale == nullptr)
            return value;
        const float activation = relu(fmaf(value, p.scale[channel], p.shift[channel]));
        return to_float32(from_float32<T>(activation));
    }

    __device__ float add_row(float sum, int64_t image, int64_t out_row) const {
        const int64_t y = out_row * p.stride.rows + row;
        if (y < 0 || y >= p.input.rows)
            return sum;
        const T* grad = static_cast<const T*>(p.grad_output) + image * p.grad_image +
                        out_row * p.grad_row + filter * p.grad_channel;
        for (int64_t out_column = 0; out_column < p.output.columns; ++out_column) {
            const int64_t x = out_column * p.stride.columns + column;
            if (x >= 0 && x < p.input.columns)
                sum = fmaf(x_at(image, y, x), to_float32(grad[out_column * p.grad_pixel]), sum);
        }
        return sum;
    }

    __device__ float sum() const {
        float sum = 0.0f;
        for (int64_t image = 0; image < p.batch; ++image)
            for (int64_t out_row = 0; out_row < p.output.rows; ++out_row) {
                sum = add_row(sum, image, out_row);
                if (sum != sum) // NaN to the end
                    return sum;
            }
        return sum;
    }
};

template <typename T> __global__ void finish_kernel(const FinishArguments a) {
    const int width = kFinishThreads / a.groups; // elements of this block
    const int lane = static_cast<int>(threadIdx.x) & (width - 1),
              group = static_cast<int>(threadIdx.x) / width;
    const int64_t i = blockIdx.x * int64_t{width} + lane, step = a.groups * a.elements;
    float sum = 0.0f;
    if (i < a.elements) {
        const float* from = a.sums + group * a.elements + i;
#pragma unroll 8
        for (int split = group; split < a.splits; split += a.groups, from += step)
            sum += *from;
    }
    float* sums = reinterpret_cast<float*>(shared_memory());
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (group > 0 || i >= a.elements)
        return;
    for (int other = 1; other < a.groups; ++other)
        sum += sums[other * width + lane];
    if (sum - sum != 0.0f) {
        sum = ExactElement<T>(a.problem, i).sum();
        count_computed_again();
    }
    a.problem.out[i] = sum;
}

} // namespace maskedconv
