#include "weight_grad/weight_grad.h"

#include <cstring>

#include "weight_grad/algorithms.h"

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

const TileLoops& tile_loops() {
    static const TileLoops& loops = chosen_loops<TileLoops>({
        &kTileGeneric,
#if defined(__x86_64__)
        &kTileAvx2,
        &kTileAvx512,
#endif
    });
    return loops;
}

} // namespace

bool weight_grad_cpu(const WeightGrad& p, int threads) {
    const Loops loops{tile_loops().tile, bn_relu_loops().float32.activate};
    const auto algorithm = has_small_channels(p) ? weight_grad_small_channels : weight_grad_by_taps;
    algorithm(p, threads, loops);
    // These algorithms multiply zeros, too, which turn what is not finite into NaN where it does
    // not belong.
    if (all_finite(p.out, p.filters * p.kernel.rows * p.kernel.columns * p.channels))
        return false;
    weight_grad_exactly(p, threads, loops);
    return true;
}

} // namespace maskedconv
