// masked_weight on CUDA: float32 weights and scores. All launches go to `stream` (a cudaStream_t)
// of the current device, and the host waits for none; std::runtime_error if one fails.
#pragma once

#include <cstdint>

#include "common/types.h"

namespace maskedconv {

// Elements that lie side by side. Dimensions go from slowest to fastest in memory; `steps` are the
// dimensions' strides in the row-major index.
struct MaskMemory {
    int64_t elements;
    Four sizes, steps;
};

// In the GPU's memory.
struct DeviceThreshold {
    float* value;
    int64_t* first; // a row-major index
};

// In the GPU's memory, for numbers of the largest size: `counts` starts as zeros.
struct SelectionSpace {
    unsigned* counts;
    unsigned* states;
};

// The elements of `counts` and of `states`.
Two find_threshold_cuda_space(int64_t elements);

// Keeps num_kept (1 to all) scores.
void find_threshold_cuda(const float* score, const MaskMemory& memory, int64_t num_kept,
                         const DeviceThreshold& threshold, const SelectionSpace& space,
                         uintptr_t stream);

// A part of the sum of the kept weights' magnitudes.
struct KeptPart {
    double magnitudes;
    double count;
};
constexpr int kKeptParts = 256;

struct MaskTensors {
    const float *weight, *score;
    void* out;       // of the type that a call gives
    KeptPart* parts; // kKeptParts, if binary, else null
};

void masked_weight_cuda(const MaskTensors& tensors, const MaskMemory& memory,
                        const DeviceThreshold& threshold, double scale, ElementType type,
                        uintptr_t stream);

struct ScoreGradTensors {
    const void* grad; // of the type that a call gives
    const float *weight, *score;
    float* out;
};

// Writes NaN if the score is NaN.
void score_grad_cuda(const ScoreGradTensors& tensors, int64_t elements, bool binary, float scale,
                     ElementType type, uintptr_t stream);

} // namespace maskedconv
