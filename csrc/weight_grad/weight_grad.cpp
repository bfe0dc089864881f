#include "weight_grad.h"

#include <cstring>

#include "weight_grad_ways.h"

namespace maskedconv {
namespace {

bool all_finite(const float* values, int64_t count) {
    constexpr uint32_t kExponent = 0x7f800000;
    uint32_t found = 0;
    for (int64_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        found |= (bits & kExponent) == kExponent;
    }
    return found == 0;
}

} // namespace

bool weight_grad_cpu(const WeightGrad& p, int threads) {
    const Kernels& kernels = chosen_kernels();
    const auto way = can_fold(p) ? weight_grad_folded : weight_grad_by_taps;
    way(p, threads, kernels);
    // These ways multiply zeros, too, which turn what is not finite into NaN where it does not
    // belong.
    if (all_finite(p.out, p.filters * p.kernel.rows * p.kernel.columns * p.channels))
        return false;
    weight_grad_exactly(p, threads, kernels);
    return true;
}

} // namespace maskedconv
