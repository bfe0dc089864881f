#include "weight_grad.h"

#include "weight_grad_ways.h"

namespace maskedconv {
namespace {

TileKernel best_kernel() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f"))
        return weight_grad_tile_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return weight_grad_tile_avx2;
#endif
    return weight_grad_tile_generic;
}

} // namespace

void weight_grad_cpu(const WeightGrad& p, int threads) {
    const auto way = can_fold(p) ? weight_grad_folded : weight_grad_by_taps;
    way(p, threads, best_kernel());
}

const char* weight_grad_isa() {
    const TileKernel kernel = best_kernel();
    if (kernel == weight_grad_tile_avx512)
        return "avx512";
    return kernel == weight_grad_tile_avx2 ? "avx2" : "generic";
}

} // namespace maskedconv
