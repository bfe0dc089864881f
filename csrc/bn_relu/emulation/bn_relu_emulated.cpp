// bn_relu's CUDA kernels on the CPU, as a C library: built by the tests, never installed.
#include "bn_relu/cuda/bn_relu.cu"
#include "bn_relu/cuda/statistics.cu"
#include "common/emulation/attempt.h"

using namespace maskedconv;

// Arguments of all functions. Pixels are `pitch` elements apart, statistics' rows `channels`.
struct EmulatedNorm {
    unsigned seed;
    int type, channels, multiprocessors;
    int64_t pixels;
    Pixels x;
    float* statistics;
    float* sums;
    unsigned* counters;

    NormShape shape() const { return {pixels, channels, static_cast<ElementType>(type)}; }
    NormStatistics rows() const { return {statistics, channels}; }
    NormWorkspace workspace() const { return {sums, counters, multiprocessors}; }
};

extern "C" {

// The elements of `sums` and `counters`.
void emulated_workspace(const EmulatedNorm* n, int64_t* sums, int64_t* counters) {
    const Two elements = bn_relu_cuda_workspace(n->shape(), n->multiprocessors);
    *sums = elements[0], *counters = elements[1];
}

int emulated_statistics(const EmulatedNorm* n, const NormSum* sum,
                        const NormParameters* parameters) {
    return attempt(n->seed, [&] {
        bn_statistics_cuda(n->shape(), n->x, *sum, *parameters, n->rows(), n->workspace(), 0);
    });
}

// `moments`: [2, channels].
int emulated_statistics_of_moments(const EmulatedNorm* n, float* moments,
                                   const NormParameters* parameters) {
    return attempt(n->seed, [&] {
        const NormStatistics known{moments, n->channels};
        bn_statistics_of_moments_cuda(n->shape(), known, *parameters, n->rows(), 0);
    });
}

int emulated_forward(const EmulatedNorm* n, const Pixels* out) {
    return attempt(n->seed,
                   [&] { bn_relu_cuda(n->shape(), n->x, n->rows(), *out, n->multiprocessors, 0); });
}

int emulated_backward(const EmulatedNorm* n, const Pixels* grad, const NormGradients* gradients) {
    return attempt(n->seed, [&] {
        bn_relu_backward_cuda(n->shape(), n->x, *grad, n->rows(), *gradients, n->workspace(), 0);
    });
}
}
