// Compiled with -mavx2 -mfma -mf16c: registers of 8 floats.
constexpr int kWidth = 8;
#include "masked_weight/loops.inl"

namespace maskedconv {
const MaskedWeightLoops kMaskedWeightAvx2 = {Isa::avx2, passes<float>(), passes<Bfloat16>(),
                                             passes<Float16>(), sum_kept};
} // namespace maskedconv
