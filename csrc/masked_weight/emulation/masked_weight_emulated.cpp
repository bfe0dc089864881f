// masked_weight's CUDA kernels on the CPU, as a C library: built by the tests, never installed.
#include "common/emulation/attempt.h"
#include "masked_weight/cuda/masked_weight.cu"
#include "masked_weight/cuda/selection.cu"

using namespace maskedconv;

// Arguments of the functions.
struct EmulatedMask {
    unsigned seed;
    int type;
    int64_t sizes[4], steps[4];
    DeviceThreshold threshold;

    MaskMemory memory() const {
        const Four lengths{sizes[0], sizes[1], sizes[2], sizes[3]};
        return {sizes[0] * sizes[1] * sizes[2] * sizes[3],
                lengths,
                {steps[0], steps[1], steps[2], steps[3]}};
    }
    ElementType element() const { return static_cast<ElementType>(type); }
};

extern "C" {

// The elements of `counts` and `states`.
void emulated_space(int64_t elements, int64_t* counts, int64_t* states) {
    const Two space = find_threshold_cuda_space(elements);
    *counts = space[0], *states = space[1];
}

int emulated_find(const EmulatedMask* m, const float* score, int64_t num_kept, unsigned* counts,
                  unsigned* states) {
    return attempt(m->seed, [&] {
        find_threshold_cuda(score, m->memory(), num_kept, m->threshold, {counts, states}, 0);
    });
}

int emulated_mask(const EmulatedMask* m, const MaskTensors* tensors, double scale) {
    return attempt(m->seed, [&] {
        masked_weight_cuda(*tensors, m->memory(), m->threshold, scale, m->element(), 0);
    });
}

int emulated_grad(const EmulatedMask* m, const ScoreGradTensors* tensors, bool binary,
                  float scale) {
    return attempt(m->seed, [&] {
        score_grad_cuda(*tensors, m->memory().elements, binary, scale, m->element(), 0);
    });
}
}
