// Compiled with -mavx512f: 32 registers of 16 floats.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad/products.inl"
#include "weight_grad/tile.inl"

namespace maskedconv {
const TileLoops kTileAvx512 = {Isa::avx512, tile<FloatProducts>, widen<Bfloat16>, widen<Float16>};
} // namespace maskedconv
