// Compiled with -mavx2 -mfma -mf16c: registers of 8 floats.
constexpr int kWidth = 8;
#include "bn_relu/loops.inl"

namespace maskedconv {
const BnReluLoops kBnReluAvx2 = {Isa::avx2, passes<float>(), passes<Bfloat16>(), passes<Float16>()};
} // namespace maskedconv
