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

template <typename S, typename E>
bool run(const WeightGrad& p, int threads, const Loops<S, E>& loops) {
    if (has_small_channels(p))
        weight_grad_small_channels(p, threads, loops);
    else
        weight_grad_by_taps(p, threads, loops);
    // These algorithms also multiply by zeros: a value that is not finite then turns elements that
    // it is not a factor of into NaN.
    if (all_finite(p.out, p.filters * p.kernel.rows * p.kernel.columns * p.channels))
        return false;
    weight_grad_exactly(p, threads, loops);
    return true;
}

#if defined(__x86_64__)
// Null if the chosen instruction set has no products of pairs.
void (*tile_for_pairs())(const TileInput<Bfloat16>&) {
    switch (chosen_isa()) {
    case Isa::amx:
        return tile_amx;
    case Isa::amx_emulated:
        return tile_amx_emulated;
    case Isa::avx512_bf16:
        return tile_of_pairs;
    default:
        return nullptr;
    }
}
#endif

bool run_bfloat16(const WeightGrad& p, int threads) {
    const BnReluPasses<Bfloat16>& passes = bn_relu_passes<Bfloat16>();
#if defined(__x86_64__)
    if (const auto tile = tile_for_pairs())
        return run<Bfloat16, Bfloat16>(p, threads, {tile, passes.activate, pair_pixels});
#endif
    const TileLoops& loops = tile_loops();
    return run<Bfloat16, float>(p, threads,
                                {loops.tile, passes.activate_to_float, loops.widen_bfloat16});
}

} // namespace

bool weight_grad_cpu(const WeightGrad& p, int threads) {
    const TileLoops& loops = tile_loops();
    switch (p.type) {
    case ElementType::bfloat16:
        return run_bfloat16(p, threads);
    case ElementType::float16:
        return run<Float16, float>(
            p, threads,
            {loops.tile, bn_relu_passes<Float16>().activate_to_float, loops.widen_float16});
    case ElementType::float32:
        break;
    }
    return run<float, float>(p, threads, {loops.tile, bn_relu_passes<float>().activate, nullptr});
}

} // namespace maskedconv
