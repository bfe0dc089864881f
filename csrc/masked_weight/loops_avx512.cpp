// Compiled with -mavx512f: registers of 16 floats.
constexpr int kWidth = 16;
#include "masked_weight/loops.inl"

namespace maskedconv {
const MaskedWeightLoops kMaskedWeightAvx512 = {Isa::avx512, passes<float>(), passes<Bfloat16>(),
                                               passes<Float16>(), sum_kept};
} // namespace maskedconv
