// The inner loops of masked_weight, compiled once for each instruction set.
#pragma once

#include <cstdint>

#include "common/halves.h"
#include "common/isa.h"

namespace maskedconv {

// Magnitudes of scores are compared as the bits of a float without its sign, which order like
// integers. All NaN have the same, the largest key.
constexpr uint32_t kInfinityKey = 0x7f800000;
constexpr uint32_t kNanKey = 0x7fc00000;

// Elements side by side. An element is kept if its score's key is above `limit`.
struct MaskedElements {
    const float *weight, *score;
    int64_t elements;
    int32_t limit;
};

// A sum over kept elements; no part of it is in single precision.
struct KeptSum {
    double magnitudes; // of the kept weights; NaN with a score of NaN
    int64_t count;
};

// The masked weight as type T: weight * factor, or if `binary` sign(weight) * factor, for kept
// elements, else 0; NaN if the score is.
template <typename T> using MaskLoop = void (*)(const MaskedElements&, float factor, T* out);
// Elements side by side.
template <typename T> struct ScoreGrad {
    const T* grad;
    const float *weight, *score;
    int64_t elements;
    float scale;
};
// out = grad * (weight * sign(score) * scale), with |weight| if `binary`; NaN if the score is.
template <typename T> using ScoreGradLoop = void (*)(const ScoreGrad<T>&, float* out);

// One for each type and for binary or not.
template <typename T> struct MaskedWeightPasses {
    MaskLoop<T> mask[2];            // [binary]
    ScoreGradLoop<T> score_grad[2]; // [binary]
};

struct MaskedWeightLoops {
    Isa isa;
    MaskedWeightPasses<float> float32;
    MaskedWeightPasses<Bfloat16> bfloat16;
    MaskedWeightPasses<Float16> float16;
    // In the same order for every instruction set, so that the bits are the same.
    KeptSum (*sum_kept)(const MaskedElements&);
};

extern const MaskedWeightLoops kMaskedWeightAvx512;
extern const MaskedWeightLoops kMaskedWeightAvx2;
extern const MaskedWeightLoops kMaskedWeightGeneric;

// The loops for chosen_isa(); throws its errors.
const MaskedWeightLoops& masked_weight_loops();

} // namespace maskedconv
