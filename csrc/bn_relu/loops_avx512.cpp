// Compiled with -mavx512f: registers of 16 floats.
constexpr int kWidth = 16;
#include "bn_relu/loops.inl"

namespace maskedconv {
const BnReluLoops kBnReluAvx512 = {Isa::avx512, passes<float>(), passes<Bfloat16>(),
                                   passes<Float16>()};
} // namespace maskedconv
