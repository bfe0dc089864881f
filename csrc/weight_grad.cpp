#include "weight_grad.h"

#include "weight_grad_ways.h"

namespace maskedconv {
namespace {

const Kernels& best_kernels() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return kAvx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return kAvx2;
#endif
    return kGeneric;
}

} // namespace

void weight_grad_cpu(const WeightGrad& p, int threads) {
    const auto way = can_fold(p) ? weight_grad_folded : weight_grad_by_taps;
    way(p, threads, best_kernels());
}

const char* weight_grad_isa() { return best_kernels().isa; }

} // namespace maskedconv
