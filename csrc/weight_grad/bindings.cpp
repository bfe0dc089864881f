#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "weight_grad/arguments.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

bool weight_grad(const std::string& type, uintptr_t x, Four x_shape, Four x_strides, uintptr_t grad,
                 Four grad_shape, Four grad_strides, Four shape, Two stride, Two padding,
                 Two dilation, uintptr_t scale, uintptr_t shift, uintptr_t out, int threads) {
    const Checks checks("weight_grad");
    const ElementType element = checks.type(type, kElementTypes);
    checks.between("threads", threads, 1);
    WeightGrad p =
        weight_grad_problem(checks, x, x_shape, x_strides, grad, grad_shape, grad_strides, shape,
                            stride, padding, dilation, scale, shift, out);
    p.type = element;
    py::gil_scoped_release release;
    return weight_grad_cpu(p, threads);
}

} // namespace

void bind_weight_grad(py::module_& module) { module.def("weight_grad", &weight_grad); }

} // namespace maskedconv
