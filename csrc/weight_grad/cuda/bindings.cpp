#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/bindings.h"
#include "weight_grad/arguments.h"
#include "weight_grad/cuda/weight_grad_cuda.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

// `multiprocessors` of the GPU, and `shared_bytes`, the most shared memory of a block.
int weight_grad_splits_on_cuda(const std::string& type, Four x_shape, Four shape, Two stride,
                               Two padding, Two dilation, int multiprocessors, int shared_bytes) {
    const Checks checks("weight_grad_cuda_splits");
    const WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    check_not_empty(checks, p);
    return weight_grad_cuda_splits(p, checks.type(type, kElementTypes),
                                   {multiprocessors, shared_bytes});
}

void weight_grad_on_cuda(const std::string& type, uintptr_t x, Four x_shape, Four x_strides,
                         uintptr_t grad, Four grad_shape, Four grad_strides, Four shape, Two stride,
                         Two padding, Two dilation, uintptr_t scale, uintptr_t shift, uintptr_t out,
                         uintptr_t workspace, int multiprocessors, int shared_bytes,
                         uintptr_t stream) {
    const Checks checks("weight_grad_cuda");
    const WeightGrad p =
        weight_grad_problem(checks, x, x_shape, x_strides, grad, grad_shape, grad_strides, shape,
                            stride, padding, dilation, scale, shift, out);
    check_not_empty(checks, p);
    const ElementType element = checks.type(type, kElementTypes);
    const CudaLimits limits{multiprocessors, shared_bytes};
    checks.memory("workspace", workspace, weight_grad_cuda_splits(p, element, limits) - 1);
    weight_grad_cuda(p, element, limits, reinterpret_cast<float*>(workspace), stream);
}

} // namespace

void bind_weight_grad_cuda(py::module_& module) {
    module.def("weight_grad_cuda", &weight_grad_on_cuda, WithoutGil());
    module.def("weight_grad_cuda_splits", &weight_grad_splits_on_cuda);
}

} // namespace maskedconv
