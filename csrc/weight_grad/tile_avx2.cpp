// Compiled with -mavx2 -mfma: 16 registers of 8 floats.
constexpr int kWidth = 8;
constexpr int kAccumulators = 12;
constexpr int kMostColumns = 6;
#include "bn_relu_loops.inl"
#include "weight_grad_tile.inl"

namespace maskedconv {
const Kernels kAvx2 = {"avx2", tile, activate, sum_gradient, input_gradient};
} // namespace maskedconv
