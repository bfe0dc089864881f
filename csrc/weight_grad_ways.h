// The two ways of weight_grad on the CPU, and what they share: images are divided among threads,
// and the gradient of the learned filters is packed.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "threads.h"
#include "weight_grad.h"
#include "weight_grad_kernel.h"

namespace maskedconv {

// One row of taps after another, for any problem.
void weight_grad_by_taps(const WeightGrad& problem, int threads, TileKernel kernel);

// All taps at once, for few channels.
bool can_fold(const WeightGrad& problem);
void weight_grad_folded(const WeightGrad& problem, int threads, TileKernel kernel);

inline float as_float(float value) { return value; }
inline float as_float(uint16_t bfloat16) {
    const uint32_t bits = static_cast<uint32_t>(bfloat16) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int64_t floor_div(int64_t a, int64_t b) { return a >= 0 ? a / b : -((-a + b - 1) / b); }
inline int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// To floats, with the prologue: channels of one pixel, or of a run of pixels without a prologue.
template <typename T>
void copy_channels(const WeightGrad& p, const T* from, float* to, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
        to[i] = as_float(from[i]);
    if (p.scale != nullptr)
        for (int64_t c = 0; c < count; ++c)
            to[c] = std::max(0.0f, to[c] * p.scale[c] + p.shift[c]);
}

// Inlined into both its calls, so that the compiler knows the pitch where it is 1.
template <typename T>
__attribute__((always_inline)) inline void pack_gradient_row(const WeightGrad& p,
                                                             const T* __restrict from,
                                                             float* __restrict to, int64_t pitch) {
    for (int64_t pixel = 0; pixel < p.output.columns; ++pixel, from += p.grad_pixel)
        for (int64_t filter = 0; filter < p.filters; ++filter)
            *to++ = as_float(from[filter * pitch]);
}

// [output row][pixel][filter], rows of `pixels` pixels that begin `left` pixels into each.
template <typename T>
void pack_gradient(const WeightGrad& p, const T* from, float* to, int64_t left, int64_t pixels) {
    for (int64_t row = 0; row < p.output.rows; ++row, from += p.grad_row) {
        float* to_row = to + (row * pixels + left) * p.filters;
        if (p.grad_channel == 1)
            pack_gradient_row(p, from, to_row, 1);
        else
            pack_gradient_row(p, from, to_row, p.grad_channel);
    }
}

template <typename Worker, typename Plan>
void add_share(Worker& worker, const Plan& plan, int64_t image, int64_t end) {
    for (; image < end; image += plan.images) {
        const int64_t count = std::min(plan.images, end - image);
        if (plan.p.type == Element::float32)
            worker.template add<float>(image, count);
        else
            worker.template add<uint16_t>(image, count);
    }
}

// Floats of x and of the gradient that fit the second cache beside the sums. The more pixels are
// taken at once, the less often the sums are loaded and stored; fewer would fit the first cache.
constexpr int64_t kCacheFloats = 65536;

inline int64_t images_at_once(const WeightGrad& p, int64_t floats_of_an_image) {
    const int64_t fit = kCacheFloats / std::max<int64_t>(1, floats_of_an_image);
    return std::max<int64_t>(1, std::min(fit, p.batch));
}

// Workers that have each added up one share of the images, in their order, some at once.
template <typename Worker, typename Plan>
std::vector<Worker> add_images(const Plan& plan, const WeightGrad& p, int threads) {
    threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, p.batch)));
    std::vector<Worker> workers;
    workers.reserve(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i)
        workers.emplace_back(plan);
    parallel(threads, [&](int thread, int count) {
        // With fewer threads than asked for, one does the work of several, in the same order.
        for (int share = thread; share < threads; share += count)
            add_share(workers[static_cast<size_t>(share)], plan, p.batch * share / threads,
                      p.batch * (share + 1) / threads);
    });
    return workers;
}

} // namespace maskedconv
