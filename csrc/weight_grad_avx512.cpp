// Compiled with -mavx512f: 32 registers of 16 floats.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad_tile.inl"

namespace maskedconv {
void weight_grad_tile_avx512(const TileInput& t) { tile(t); }
} // namespace maskedconv
