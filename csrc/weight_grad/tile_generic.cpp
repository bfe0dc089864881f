// For any processor: vectors of 4 floats, which the compiler maps to its registers.
constexpr int kWidth = 4;
constexpr int kAccumulators = 12;
constexpr int kMostColumns = 6;
#include "weight_grad/products.inl"
#include "weight_grad/tile.inl"

namespace maskedconv {
const TileLoops kTileGeneric = {Isa::generic, tile<FloatProducts>, widen<Bfloat16>, widen<Float16>};
} // namespace maskedconv
