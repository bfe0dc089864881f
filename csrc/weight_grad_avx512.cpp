// Compiled with -mavx512f: 32 registers of 16 floats.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "weight_grad_tile.inl"

namespace maskedconv {
const Kernels kAvx512 = {"avx512", tile, prologue};
} // namespace maskedconv
