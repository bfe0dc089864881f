// The algorithms of weight_grad on the CPU, and how they divide images among threads.
#pragma once

#include <algorithm>
#include <vector>

#include "common.h"
#include "weight_grad/gradient.h"
#include "weight_grad/operands.h"
#include "weight_grad/sums.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

// One row of taps after another, for any problem. A pixel near the border is multiplied by zeros
// for the taps that do not meet it.
template <typename S, typename E>
void weight_grad_by_taps(const WeightGrad& problem, int threads, const Loops<S, E>& loops);

// One tap after another: slower, and without products of zero padding.
template <typename S, typename E>
void weight_grad_exactly(const WeightGrad& problem, int threads, const Loops<S, E>& loops);

// All taps at once, for few channels; the gradient is multiplied by the zeros of the padding.
inline bool has_small_channels(const WeightGrad& p) {
    return p.channels < kLane && p.dilation.columns == 1;
}
template <typename S, typename E>
void weight_grad_small_channels(const WeightGrad& problem, int threads, const Loops<S, E>& loops);

// The types that an algorithm is compiled for.
#define INSTANTIATE(algorithm)                                                                     \
    template void algorithm(const WeightGrad&, int, const Loops<float, float>&);                   \
    template void algorithm(const WeightGrad&, int, const Loops<Bfloat16, float>&);                \
    template void algorithm(const WeightGrad&, int, const Loops<Float16, float>&);                 \
    template void algorithm(const WeightGrad&, int, const Loops<Bfloat16, Bfloat16>&)

// Bytes of x and of the gradient that fit the second cache beside the sums. The more pixels are
// taken at once, the less often the sums are loaded and stored; fewer would fit the first cache.
constexpr int64_t kCacheBytes = 262144;

inline int64_t images_at_once(const WeightGrad& p, int64_t bytes_of_an_image) {
    const int64_t fit = kCacheBytes / std::max<int64_t>(1, bytes_of_an_image);
    return std::max<int64_t>(1, std::min(fit, p.batch));
}

// The sums of all images: each thread adds up one share of them in their order, some at once.
template <typename Worker, typename Plan>
Totals add_images(const Plan& plan, const WeightGrad& p, int threads) {
    threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, p.batch)));
    std::vector<Worker> workers;
    workers.reserve(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i)
        workers.emplace_back(plan);
    for_shares(p.batch, threads, [&](int share, int64_t begin, int64_t end) {
        Worker& worker = workers[static_cast<size_t>(share)];
        worker.sums.start();
        for (int64_t image = begin; image < end; image += plan.images)
            worker.add(image, std::min(plan.images, end - image));
    });
    Totals totals;
    for (Worker& worker : workers)
        totals.add(std::move(worker.sums));
    return totals;
}

} // namespace maskedconv
