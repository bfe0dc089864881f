#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/bindings.h"
#include "weight_grad/arguments.h"
#include "weight_grad/wgmma/cuda/weight_grad_wgmma.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

// Why the kernel does not take the problem, or an empty text, on a GPU of `multiprocessors` whose
// blocks may have `shared_bytes` of shared memory.
std::string refusal_of(const std::string& type, uintptr_t x, Four x_shape, Four x_strides,
                       uintptr_t grad, Four grad_shape, Four grad_strides, Four shape, Two stride,
                       Two padding, Two dilation, int multiprocessors, int shared_bytes) {
    const Checks checks("weight_grad_wgmma_refusal");
    WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    check_not_empty(checks, p);
    set_operands(checks, p, x, x_shape, x_strides, grad, grad_shape, grad_strides);
    return weight_grad_wgmma_refusal(p, checks.type(type, kElementTypes),
                                     {multiprocessors, shared_bytes});
}

// Floats and counters of a launch's workspace.
std::pair<int64_t, int64_t> workspace_of(const std::string& type, Four x_shape, Four shape,
                                         Two stride, Two padding, Two dilation, int multiprocessors,
                                         int shared_bytes) {
    const Checks checks("weight_grad_wgmma_workspace");
    const WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    check_not_empty(checks, p);
    const CudaLimits limits{multiprocessors, shared_bytes};
    const std::string refusal =
        weight_grad_wgmma_sizes_refusal(p, checks.type(type, kElementTypes), limits);
    if (!refusal.empty())
        checks.refuse(refusal);
    const WgmmaWorkspace workspace = weight_grad_wgmma_workspace(p, limits);
    return {workspace.floats, workspace.counters};
}

void weight_grad_by_wgmma(const std::string& type, uintptr_t x, Four x_shape, Four x_strides,
                          uintptr_t grad, Four grad_shape, Four grad_strides, Four shape,
                          Two stride, Two padding, Two dilation, uintptr_t scale, uintptr_t shift,
                          uintptr_t out, uintptr_t workspace, uintptr_t counters,
                          int multiprocessors, int shared_bytes, uintptr_t stream) {
    const Checks checks("weight_grad_wgmma");
    const WeightGrad p =
        weight_grad_problem(checks, x, x_shape, x_strides, grad, grad_shape, grad_strides, shape,
                            stride, padding, dilation, scale, shift, out);
    check_not_empty(checks, p);
    const ElementType element = checks.type(type, kElementTypes);
    const CudaLimits limits{multiprocessors, shared_bytes};
    const std::string refusal = weight_grad_wgmma_refusal(p, element, limits);
    if (!refusal.empty())
        checks.refuse(refusal);
    const WgmmaWorkspace needed = weight_grad_wgmma_workspace(p, limits);
    checks.memory("workspace", workspace, needed.floats);
    checks.memory("counters", counters, needed.counters);
    weight_grad_wgmma(p, element, limits, reinterpret_cast<float*>(workspace),
                      reinterpret_cast<unsigned*>(counters), stream);
}

} // namespace

void bind_weight_grad_wgmma(py::module_& module) {
    module.def("weight_grad_wgmma", &weight_grad_by_wgmma, WithoutGil());
    module.def("weight_grad_wgmma_refusal", &refusal_of);
    module.def("weight_grad_wgmma_workspace", &workspace_of);
}

} // namespace maskedconv
