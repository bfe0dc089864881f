// The element-wise pass of BatchNorm and ReLU, and their backward pass: a launch that adds up over
// all pixels, and one for the input's gradient. Each reads x and computes ReLU's mask again.
#include "bn_relu/cuda/reduction.h"

namespace maskedconv {
namespace {

struct ForwardArguments {
    Pixels x, out;
    int pixels, channels, lane_bits;
    NormStatistics statistics;
};

// A row of the statistics, for a thread's channels.
enum Row { kMean = 0, kInverseDeviation = 2, kScale = 3, kShift = 4 };

template <int kWidth>
__device__ __forceinline__ void load_row(const NormStatistics& statistics, Row row, int channel,
                                         float (&to)[kWidth]) {
    load_channels(statistics.data + row * statistics.pitch, channel, to);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) forward_kernel(const ForwardArguments a) {
    const NormThread t = NormThread::at<kWidth>(a.lane_bits);
    if (t.channel >= a.channels)
        return;
    float scale[kWidth], shift[kWidth], value[kWidth];
    load_row(a.statistics, kScale, t.channel, scale);
    load_row(a.statistics, kShift, t.channel, shift);
    for (int pixel = t.first_pixel(); pixel < a.pixels; pixel += t.step()) {
        load_vector<T>(a.x.data, pixel * a.x.pitch + t.channel, value);
        for (int i = 0; i < kWidth; ++i) {
            const float normalised = fmaf(value[i], scale[i], shift[i]);
            value[i] = normalised <= 0.0f ? 0.0f : normalised; // NaN passes, as in PyTorch
        }
        store_vector<T>(a.out.data, pixel * a.out.pitch + t.channel, value);
    }
}

struct BackwardArguments {
    Pixels x, grad;
    int pixels;
    NormStatistics statistics;
    NormGradients gradients;
    Partials partials;
};

// Sets `grad` to 0 if the ReLU is closed. NaN opens it, as in PyTorch.
template <int kWidth>
__device__ __forceinline__ void mask(const float (&x)[kWidth], const float (&scale)[kWidth],
                                     const float (&shift)[kWidth], float (&grad)[kWidth]) {
    for (int i = 0; i < kWidth; ++i)
        if (fmaf(x[i], scale[i], shift[i]) <= 0.0f)
            grad[i] = 0.0f;
}

// The sums of grad and of grad (x - mean) of this thread's pixels.
template <typename T, int kWidth>
__device__ __forceinline__ Sums<kWidth> sums_of(const BackwardArguments& a, const NormThread& t) {
    Sums<kWidth> part;
    if (t.channel >= a.partials.channels)
        return part;
    float mean[kWidth], scale[kWidth], shift[kWidth], x[kWidth], grad[kWidth];
    load_row(a.statistics, kMean, t.channel, mean);
    load_row(a.statistics, kScale, t.channel, scale);
    load_row(a.statistics, kShift, t.channel, shift);
    for (int pixel = t.first_pixel(); pixel < a.pixels; pixel += t.step()) {
        load_vector<T>(a.x.data, pixel * a.x.pitch + t.channel, x);
        load_vector<T>(a.grad.data, pixel * a.grad.pitch + t.channel, grad);
        mask(x, scale, shift, grad);
        for (int i = 0; i < kWidth; ++i) {
            part.first[i] += grad[i];
            part.second[i] = fmaf(grad[i], x[i] - mean[i], part.second[i]);
        }
    }
    return part;
}

// The gradients of γ and β, and the coefficients of the input's gradient.
__device__ __forceinline__ void finish(const BackwardArguments& a, int channel, float sum,
                                       float product) {
    const NormGradients& g = a.gradients;
    const NormStatistics& s = a.statistics;
    const float inverse = s.data[kInverseDeviation * s.pitch + channel];
    const float scale = s.data[kScale * s.pitch + channel];
    if (g.grad_weight != nullptr)
        g.grad_weight[channel] = product * inverse;
    if (g.grad_bias != nullptr)
        g.grad_bias[channel] = sum;
    const float share = scale / static_cast<float>(a.pixels);
    g.coefficients[channel] = -share * sum;
    g.coefficients[a.partials.channels + channel] = -share * inverse * inverse * product;
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) backward_sums_kernel(const BackwardArguments a) {
    const NormThread t = NormThread::at<kWidth>(a.partials.lane_bits);
    Sums<kWidth> part = sums_of<T, kWidth>(a, t);
    if (!join_blocks<kWidth, Sums>(a.partials, t, part))
        return;
    for (int i = 0; i < kWidth; ++i)
        finish(a, t.channel + i, part.first[i], part.second[i]);
}

template <typename T, int kWidth>
__global__ void __launch_bounds__(kNormThreads) backward_kernel(const BackwardArguments a) {
    const NormThread t = NormThread::at<kWidth>(a.partials.lane_bits);
    const NormGradients& g = a.gradients;
    const int channels = a.partials.channels;
    if (t.channel >= channels)
        return;
    float mean[kWidth], scale[kWidth], shift[kWidth], constant[kWidth], slope[kWidth];
    load_row(a.statistics, kMean, t.channel, mean);
    load_row(a.statistics, kScale, t.channel, scale);
    load_row(a.statistics, kShift, t.channel, shift);
    load_channels(g.uses_batch_stats ? g.coefficients : nullptr, t.channel, constant);
    load_channels(g.uses_batch_stats ? g.coefficients + channels : nullptr, t.channel, slope);
    float x[kWidth], grad[kWidth], added[kWidth];
    for (int pixel = t.first_pixel(); pixel < a.pixels; pixel += t.step()) {
        load_vector<T>(a.x.data, pixel * a.x.pitch + t.channel, x);
        load_vector<T>(a.grad.data, pixel * a.grad.pitch + t.channel, grad);
        mask(x, scale, shift, grad);
        for (int i = 0; i < kWidth; ++i) {
            grad[i] *= scale[i];
            if (g.uses_batch_stats) // else an infinite x would be multiplied by 0
                grad[i] += fmaf(slope[i], x[i] - mean[i], constant[i]);
        }
        if (g.added.data != nullptr) {
            load_vector<T>(g.added.data, pixel * g.added.pitch + t.channel, added);
            for (int i = 0; i < kWidth; ++i)
                grad[i] += added[i];
        }
        store_vector<T>(g.grad_x.data, pixel * g.grad_x.pitch + t.channel, grad);
    }
}

} // namespace

void bn_relu_cuda(const NormShape& shape, const Pixels& x, const NormStatistics& statistics,
                  const Pixels& out, int multiprocessors, uintptr_t stream) {
    const int width = vector_width(shape, {&x, &out});
    const NormGrid grid = norm_grid(shape, width, multiprocessors, kElementWaves);
    const ForwardArguments a{
        x, out, static_cast<int>(shape.pixels), shape.channels, grid.lane_bits, statistics};
    for_width(shape, width, [&](auto element, auto lanes) {
        launch("bn_relu", &forward_kernel<decltype(element), decltype(lanes)::value>, grid.grid(),
               kNormThreads, 0, stream, a);
    });
}

void bn_relu_backward_cuda(const NormShape& shape, const Pixels& x, const Pixels& grad,
                           const NormStatistics& statistics, const NormGradients& gradients,
                           const NormWorkspace& workspace, uintptr_t stream) {
    const bool needs_x = gradients.grad_x.data != nullptr;
    // A tensor that is not there has address 0 and fits every width.
    const int width = vector_width(shape, {&x, &grad, &gradients.grad_x, &gradients.added});
    BackwardArguments a{
        x,          grad,      static_cast<int>(shape.pixels),
        statistics, gradients, {workspace.sums, workspace.counters, shape.channels, 0}};
    const bool sums = gradients.grad_weight != nullptr || gradients.grad_bias != nullptr ||
                      (needs_x && gradients.uses_batch_stats);
    for_width(shape, width, [&](auto element, auto lanes) {
        using T = decltype(element);
        constexpr int kWidth = decltype(lanes)::value;
        if (sums) {
            const NormGrid grid = norm_grid(shape, width, workspace.multiprocessors, kSumWaves);
            a.partials.lane_bits = grid.lane_bits;
            clear_counters("bn_relu_backward", grid, workspace, stream);
            launch("bn_relu_backward", &backward_sums_kernel<T, kWidth>, grid.grid(), kNormThreads,
                   shared_bytes_of<Sums<kWidth>>(), stream, a);
        }
        if (needs_x) {
            const NormGrid grid = norm_grid(shape, width, workspace.multiprocessors, kElementWaves);
            a.partials.lane_bits = grid.lane_bits;
            launch("bn_relu_backward", &backward_kernel<T, kWidth>, grid.grid(), kNormThreads, 0,
                   stream, a);
        }
    });
}

} // namespace maskedconv
