#include "bn_relu/statistics.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "bn_relu/bn_relu.h"
#include "common.h"

namespace maskedconv {
namespace {

// Added up in single precision before they go into the sums in double precision.
constexpr int64_t kPixelsInSingle = 64;

template <typename T> MomentsInput<T> part(const MomentsInput<T>& in, int64_t begin, int64_t end) {
    MomentsInput<T> pixels = in;
    pixels.x += begin * in.x_pixel;
    pixels.pixels = end - begin;
    if (in.summand != nullptr) {
        pixels.summand += begin * in.summand_pixel;
        pixels.total += begin * in.total_pixel;
    }
    return pixels;
}

// Sums of values minus a number, and of the squares of these: [sum, squares][channel].
struct Excess {
    explicit Excess(int64_t channels)
        : pivot(static_cast<size_t>(channels)), over_pivot(2 * pivot.size()),
          over_origin(2 * pivot.size()) {}

    // The excess over a value of the block itself keeps the digits of the variance if the mean is
    // large. The excess of the pivot over the origin is exact enough in double precision.
    template <typename T> void add(const MomentsInput<T>& block, const std::vector<float>& origin) {
        std::fill(over_pivot.begin(), over_pivot.end(), 0.0f);
        bn_relu_passes<T>().sum_moments(block, pivot.data(), over_pivot.data());
        const double pixels = static_cast<double>(block.pixels);
        const size_t channels = pivot.size();
        for (size_t c = 0; c < channels; ++c) {
            const double distance = static_cast<double>(pivot[c]) - origin[c];
            const double sum = over_pivot[c], squares = over_pivot[channels + c];
            over_origin[c] += sum + pixels * distance;
            over_origin[channels + c] += squares + distance * (2 * sum + pixels * distance);
        }
    }

    std::vector<float> pivot, over_pivot; // of a block
    std::vector<double> over_origin;      // of all blocks
};

template <typename T> std::vector<float> first_pixel(const MomentsInput<T>& in) {
    Excess one(in.channels);
    bn_relu_passes<T>().sum_moments(part(in, 0, 1), one.pivot.data(), one.over_pivot.data());
    return one.pivot;
}

// Interpolates with the rounding of torch.lerp.
float between(float from, float to, float fraction) {
    const float way = to - from;
    return fraction < 0.5f ? from + fraction * way : to - way * (1.0f - fraction);
}

void move(int64_t pixels, int64_t channels, const NormState& state, const NormTable& table) {
    if (state.batches != nullptr)
        ++*state.batches;
    if (state.running_mean == nullptr)
        return;
    const float fraction =
        state.momentum >= 0 ? state.momentum : 1.0f / static_cast<float>(*state.batches);
    const float *mean = table.mean, *var = mean + table.row;
    const double unbiased = static_cast<double>(pixels) / static_cast<double>(pixels - 1);
    for (int64_t c = 0; c < channels; ++c) {
        const float wanted = static_cast<float>(var[c] * unbiased);
        state.running_mean[c] = between(state.running_mean[c], mean[c], fraction);
        state.running_var[c] = between(state.running_var[c], wanted, fraction);
    }
}

} // namespace

template <typename T>
void batch_moments_cpu(const MomentsInput<T>& in, NormTable table, int threads) {
    const std::vector<float> origin = first_pixel(in);
    std::vector<Excess> shares(static_cast<size_t>(threads), Excess(in.channels));
    for_shares(in.pixels, threads, [&](int share, int64_t begin, int64_t end) {
        for (int64_t pixel = begin; pixel < end; pixel += kPixelsInSingle)
            shares[static_cast<size_t>(share)].add(
                part(in, pixel, std::min(pixel + kPixelsInSingle, end)), origin);
    });
    const size_t channels = static_cast<size_t>(in.channels);
    const double pixels = static_cast<double>(in.pixels);
    float *mean = table.mean, *var = mean + table.row;
    for (size_t c = 0; c < channels; ++c) {
        double sum = 0, squares = 0;
        for (const Excess& share : shares)
            sum += share.over_origin[c], squares += share.over_origin[channels + c];
        const double excess = sum / pixels, variance = squares / pixels - excess * excess;
        mean[c] = static_cast<float>(origin[c] + excess);
        var[c] = static_cast<float>(variance < 0 ? 0 : variance); // NaN stays
    }
}

void bn_statistics_of_moments_cpu(int64_t pixels, int64_t channels, const NormState& state,
                                  NormTable table) {
    move(pixels, channels, state, table);
    const float *mean = table.mean, *var = mean + table.row;
    float *inverse_deviation = table.mean + 2 * table.row, *scale = inverse_deviation + table.row,
          *shift = scale + table.row;
    for (int64_t c = 0; c < channels; ++c) {
        inverse_deviation[c] = 1.0f / std::sqrt(var[c] + state.eps);
        scale[c] = inverse_deviation[c] * (state.weight != nullptr ? state.weight[c] : 1.0f);
        shift[c] = (state.bias != nullptr ? state.bias[c] : 0.0f) - mean[c] * scale[c];
    }
}

template void batch_moments_cpu(const MomentsInput<float>&, NormTable, int);
template void batch_moments_cpu(const MomentsInput<Bfloat16>&, NormTable, int);
template void batch_moments_cpu(const MomentsInput<Float16>&, NormTable, int);

} // namespace maskedconv
