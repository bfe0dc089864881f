// Compiled with -mavx2 -mfma -mf16c: 16 registers of 8 floats.
constexpr int kWidth = 8;
constexpr int kAccumulators = 12;
constexpr int kMostColumns = 6;
#include "weight_grad/products.inl"
#include "weight_grad/tile.inl"

namespace maskedconv {
const TileLoops kTileAvx2 = {Isa::avx2, tile<FloatProducts>, widen<Bfloat16>, widen<Float16>};
} // namespace maskedconv
