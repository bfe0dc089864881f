// For any processor: vectors of 4 floats, which the compiler maps to its registers.
constexpr int kWidth = 4;
#include "bn_relu/loops.inl"

namespace maskedconv {
const BnReluLoops kBnReluGeneric = {Isa::generic, passes<float>(), passes<Bfloat16>(),
                                    passes<Float16>()};
} // namespace maskedconv
