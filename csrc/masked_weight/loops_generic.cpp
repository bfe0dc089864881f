// For any processor: vectors of 4 floats, which the compiler maps to its registers.
constexpr int kWidth = 4;
#include "masked_weight/loops.inl"

namespace maskedconv {
const MaskedWeightLoops kMaskedWeightGeneric = {Isa::generic, passes<float>(), passes<Bfloat16>(),
                                                passes<Float16>(), sum_kept};
} // namespace maskedconv
