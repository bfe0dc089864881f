// Compiled with -mavx512f: 32 registers of 16 floats.
constexpr int kWidth = 16;
constexpr int kAccumulators = 24;
constexpr int kMostColumns = 12;
#include "bn_relu_loops.inl"
#include "weight_grad_tile.inl"

namespace maskedconv {
const Kernels kAvx512 = {"avx512", tile, activate, sum_gradient, input_gradient};
} // namespace maskedconv
