// Statistics of a BatchNorm's input in one launch: 1 read of x. With a summand also 1 read of it
// and 1 write of the sum.
#include "bn_relu/cuda/reduction.h"

namespace maskedconv {
namespace {

struct StatisticsArguments {
    Pixels x;
    NormSum sum;
    int pixels;
    NormParameters parameters;
    NormStatistics statistics;
    Partials partials;
};

// The values that the statistics are of. A sum is written, and then used as rounded to its type.
template <typename T, int kWidth, bool kSum>
__device__ __forceinline__ void load_values(const StatisticsArguments& a, int64_t pixel,
                                            int channel, float (&to)[kWidth]) {
    load_vector<T>(a.x.data, pixel * a.x.pitch + channel, to);
    if constexpr (kSum) {
        float summand[kWidth];
        load_vector<T>(a.sum.summand.data, pixel * a.sum.summand.pitch + channel, summand);
        for (int i = 0; i < kWidth; ++i)
            to[i] = to_float32(from_float32<T>(to[i] + summand[i]));
        store_vector<T>(a.sum.total.data, pixel * a.sum.total.pitch + channel, to);
    }
}

// The spread of this thread's pixels. Values are taken relative to its first, so that a large mean
// costs no digits of the variance.
template <typename T, int kWidth, bool kSum>
__device__ __forceinline__ Spread<kWidth> spread_of(const StatisticsArguments& a,
                                                    const NormThread& t) {
    Spread<kWidth> part;
    int pixel = t.first_pixel();
    if (t.channel >= a.partials.channels || pixel >= a.pixels)
        return part;
    float pivot[kWidth], value[kWidth];
    load_values<T, kWidth, kSum>(a, pixel, t.channel, pivot);
    int count = 1;
    // The default factor; without the pragma, ptxas 13.0 spills registers for bfloat16 on sm_80.
#pragma unroll 4
    for (pixel += t.step(); pixel < a.pixels; pixel += t.step(), ++count) {
        load_values<T, kWidth, kSum>(a, pixel, t.channel, value);
        for (int i = 0; i < kWidth; ++i) {
            const float gap = value[i] - pivot[i];
            part.first[i] += gap;
            part.second[i] = fmaf(gap, gap, part.second[i]);
        }
    }
    part.count = static_cast<float>(count);
    for (int i = 0; i < kWidth; ++i) {
        const float mean = part.first[i] / part.count;
        part.second[i] = fmaf(-part.first[i], mean, part.second[i]);
        part.first[i] = pivot[i] + mean;
    }
    return part;
}

__device__ __forceinline__ float moved(float running, float value, float fraction) {
    return fmaf(fraction, value - running, running);
}

__device__ __forceinline__ void finish(const StatisticsArguments& a, int channel, float mean,
                                       float variance) {
    const NormParameters& p = a.parameters;
    const float count = static_cast<float>(a.pixels);
    const float inverse = 1.0f / sqrtf(variance + p.eps);
    const float scale = p.weight == nullptr ? inverse : inverse * p.weight[channel];
    const float bias = p.bias == nullptr ? 0.0f : p.bias[channel];
    const float rows[] = {mean, variance, inverse, scale, fmaf(-mean, scale, bias)};
    for (int row = 0; row < 5; ++row)
        a.statistics.data[row * a.statistics.pitch + channel] = rows[row];
    if (p.running_mean == nullptr)
        return;
    const float fraction = p.momentum < 0.0f ? 1.0f / static_cast<float>(*p.batches) : p.momentum;
    float& running_mean = p.running_mean[channel];
    float& running_var = p.running_var[channel];
    running_mean = moved(running_mean, mean, fraction);
    running_var = moved(running_var, variance * (count / (count - 1.0f)), fraction);
}

__device__ __forceinline__ void count_batch(const NormParameters& p) {
    if (p.batches != nullptr && p.momentum >= 0.0f)
        ++*p.batches;
}

template <typename T, int kWidth, bool kSum>
__global__ void __launch_bounds__(kNormThreads) statistics_kernel(const StatisticsArguments a) {
    const NormThread t = NormThread::at<kWidth>(a.partials.lane_bits);
    Spread<kWidth> part = spread_of<T, kWidth, kSum>(a, t);
    if (!join_blocks<kWidth, Spread>(a.partials, t, part))
        return;
    for (int i = 0; i < kWidth; ++i) {
        // Rounding may make the sum of squared deviations negative; NaN stays NaN.
        const float squares = part.second[i] < 0.0f ? 0.0f : part.second[i];
        finish(a, t.channel + i, part.first[i], squares / static_cast<float>(a.pixels));
    }
    if (t.channel == 0)
        count_batch(a.parameters);
}

__global__ void __launch_bounds__(kNormThreads)
    statistics_of_moments_kernel(const StatisticsArguments a) {
    const int channel = static_cast<int>(blockIdx.x) * kNormThreads + threadIdx.x;
    if (channel >= a.partials.channels)
        return;
    const float* mean = static_cast<const float*>(a.x.data) + channel;
    finish(a, channel, mean[0], mean[a.x.pitch]);
    if (channel == 0)
        count_batch(a.parameters);
}

} // namespace

Two bn_relu_cuda_workspace(const NormShape& shape, int multiprocessors) {
    int64_t blocks = 0, tiles = 0;
    for (int width = 1; width <= 8; width *= 2)
        if (shape.channels % width == 0) {
            const NormGrid grid = norm_grid(shape, width, multiprocessors, kSumWaves);
            blocks = std::max<int64_t>(blocks, grid.pixel_blocks);
            tiles = std::max<int64_t>(tiles, grid.channel_tiles);
        }
    return {blocks * (2 * int64_t{shape.channels} + 1), tiles};
}

void bn_statistics_cuda(const NormShape& shape, const Pixels& x, const NormSum& sum,
                        const NormParameters& parameters, const NormStatistics& statistics,
                        const NormWorkspace& workspace, uintptr_t stream) {
    const int width = vector_width(shape, {&x, &sum.summand, &sum.total});
    const NormGrid grid = norm_grid(shape, width, workspace.multiprocessors, kSumWaves);
    const StatisticsArguments a{
        x,
        sum,
        static_cast<int>(shape.pixels),
        parameters,
        statistics,
        {workspace.sums, workspace.counters, shape.channels, grid.lane_bits}};
    for_width(shape, width, [&](auto element, auto lanes) {
        using T = decltype(element);
        constexpr int kWidth = decltype(lanes)::value;
        const auto kernel = sum.summand.data != nullptr ? &statistics_kernel<T, kWidth, true>
                                                        : &statistics_kernel<T, kWidth, false>;
        clear_counters("bn_statistics", grid, workspace, stream);
        launch("bn_statistics", kernel, grid.grid(), kNormThreads,
               shared_bytes_of<Spread<kWidth>>(), stream, a);
    });
}

void bn_statistics_of_moments_cuda(const NormShape& shape, const NormStatistics& moments,
                                   const NormParameters& parameters,
                                   const NormStatistics& statistics, uintptr_t stream) {
    const StatisticsArguments a{{moments.data, moments.pitch},
                                {},
                                static_cast<int>(shape.pixels),
                                parameters,
                                statistics,
                                {nullptr, nullptr, shape.channels, 0}};
    const dim3 blocks(static_cast<unsigned>((shape.channels + kNormThreads - 1) / kNormThreads));
    launch("bn_statistics", &statistics_of_moments_kernel, blocks, kNormThreads, 0, stream, a);
}

} // namespace maskedconv
