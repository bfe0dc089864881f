// The algorithms of weight_grad on the CPU, and what they share: images are divided among threads.
#pragma once

#include <algorithm>
#include <vector>

#include "common.h"
#include "weight_grad/operands.h"
#include "weight_grad/sums.h"
#include "weight_grad/weight_grad.h"

namespace maskedconv {

// One row of taps after another, for any problem. A pixel near the border is multiplied by zeros
// for the taps that do not meet it.
void weight_grad_by_taps(const WeightGrad& problem, int threads, const Loops& loops);

// One tap after another: slower, and of no products but those that there are.
void weight_grad_exactly(const WeightGrad& problem, int threads, const Loops& loops);

// All taps at once, for few channels; the gradient is multiplied by the zeros of the padding.
bool has_small_channels(const WeightGrad& problem);
void weight_grad_small_channels(const WeightGrad& problem, int threads, const Loops& loops);

template <typename Worker, typename Plan>
void add_share(Worker& worker, const Plan& plan, int64_t image, int64_t end) {
    for (; image < end; image += plan.images) {
        const int64_t count = std::min(plan.images, end - image);
        if (plan.p.type == ElementType::float32)
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

// The sums of all images: each thread adds up one share of them in their order, some at once.
template <typename Worker, typename Plan>
Sums add_images(const Plan& plan, const WeightGrad& p, int threads) {
    threads = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, p.batch)));
    std::vector<Worker> workers;
    workers.reserve(static_cast<size_t>(threads));
    for (int i = 0; i < threads; ++i)
        workers.emplace_back(plan);
    for_shares(p.batch, threads, [&](int share, int64_t begin, int64_t end) {
        add_share(workers[static_cast<size_t>(share)], plan, begin, end);
    });
    Sums total = std::move(workers[0].sums);
    for (size_t i = 1; i < workers.size(); ++i)
        total.add(workers[i].sums);
    return total;
}

} // namespace maskedconv
