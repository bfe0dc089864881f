// masked_weight on the CPU: float32 weights and scores, side by side. T is float, Bfloat16 or
// Float16.
#pragma once

#include "masked_weight/loops.h"

namespace maskedconv {

// Keeps scores with a magnitude above `value`, and scores of that magnitude from index `first` on.
// NaN counts as the largest magnitude.
struct ScoreThreshold {
    float value;
    int64_t first;
};

// The threshold that keeps the last num_kept (1 to elements) of a stable ascending sort by
// magnitude; `first` is 0 if all of the magnitude `value` are kept. Radix selection, in linear
// time.
ScoreThreshold find_threshold_cpu(const float* score, int64_t elements, int64_t num_kept,
                                  int threads);

struct MaskedWeight {
    const float *weight, *score;
    int64_t elements;
    ScoreThreshold threshold;
    bool binary; // sign(weight) times the mean magnitude of the kept weights, instead of weight
    double scale;
};

// The same bits for any number of threads and any instruction set.
template <typename T> void masked_weight_cpu(const MaskedWeight& problem, T* out, int threads);

// With |weight| if `binary`.
template <typename T>
void score_grad_cpu(const ScoreGrad<T>& problem, bool binary, float* out, int threads);

// The number of threads, at most `threads`, that are worth their start.
int threads_for(int64_t elements, int threads);

} // namespace maskedconv
