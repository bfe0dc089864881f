#include "weight_grad.h"

#include "weight_grad_ways.h"

namespace maskedconv {

void weight_grad_cpu(const WeightGrad& p, int threads) {
    const auto way = can_fold(p) ? weight_grad_folded : weight_grad_by_taps;
    way(p, threads, best_kernels());
}

} // namespace maskedconv
