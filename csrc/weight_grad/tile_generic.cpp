// For any processor: vectors of 4 floats, which the compiler maps to what there is.
constexpr int kWidth = 4;
constexpr int kAccumulators = 12;
constexpr int kMostColumns = 6;
#include "bn_relu_loops.inl"
#include "weight_grad_tile.inl"

namespace maskedconv {
const Kernels kGeneric = {"generic", tile, activate, sum_gradient, input_gradient};
} // namespace maskedconv
