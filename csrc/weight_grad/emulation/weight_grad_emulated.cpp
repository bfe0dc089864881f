// weight_grad's CUDA kernel on the CPU, as a C library: built by the tests, never installed.
#include "common/emulation/attempt.h"
#include "weight_grad/cuda/weight_grad.cu"
#include "weight_grad/emulation/problem.h"

namespace {

using namespace maskedconv;

int last_fast = 0;

// Whether the kernel of this type takes the problem by its fast path.
int takes_fast_path(const WeightGrad& p, ElementType type, const CudaLimits& limits) {
    const Plan plan = plan_weight_grad(p, type, limits.multiprocessors, limits.shared_bytes);
    const int element = element_bytes(type);
    return is_fast(make_arguments(p, plan, element, p.out), element);
}

} // namespace

extern "C" {

// Elements of the last weight_grad.
int64_t emulated_computed_again() { return computed_again; }

// Whether the last weight_grad took the fast path.
int emulated_fast_path() { return last_fast; }

int emulated_quotient(int64_t divisor, int dividend) { return Divisor(divisor).quotient(dividend); }

// `plan`: m_tiles, channel, column and pixel warps, channel and column blocks, splits, tiles and
// the bytes of shared memory.
void emulated_plan(int type, const int64_t* sizes, int multiprocessors, int shared_bytes,
                   int64_t* plan) {
    const Plan made = plan_weight_grad(problem_of(sizes), static_cast<ElementType>(type),
                                       multiprocessors, shared_bytes);
    const int64_t values[] = {made.m_tiles,     made.channel_warps,  made.column_warps,
                              made.pixel_warps, made.channel_blocks, made.column_blocks,
                              made.splits,      made.tiles,          made.shared_bytes};
    std::copy(std::begin(values), std::end(values), plan);
}

// `x_strides`: image, row, pixel; `grad_strides`: image, channel, row, pixel. 0: done; 1: see
// emulated_error.
int emulated_weight_grad(unsigned seed, int type, const void* x, const int64_t* x_strides,
                         const void* grad, const int64_t* grad_strides, const int64_t* sizes,
                         const float* scale, const float* shift, int multiprocessors,
                         int shared_bytes, float* out) {
    WeightGrad p = problem_of(sizes, x, x_strides, grad, grad_strides);
    p.scale = scale, p.shift = shift, p.out = out;
    const CudaLimits limits{multiprocessors, shared_bytes};
    const ElementType element = static_cast<ElementType>(type);
    return attempt(seed, [&] {
        computed_again = 0;
        const int64_t splits = weight_grad_cuda_splits(p, element, limits);
        const int64_t elements = p.filters * p.kernel.rows * p.kernel.columns * p.channels;
        std::vector<float> workspace(splits * elements, NAN);
        weight_grad_cuda(p, element, limits, workspace.data(), 0);
        last_fast = takes_fast_path(p, element, limits);
    });
}
}
