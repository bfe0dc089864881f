#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "pack_filters/arguments.h"
#include "pack_filters/cuda/pack_filters_cuda.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

void pack_filters_on_cuda(uintptr_t out, Four out_strides, const std::string& out_type,
                          uintptr_t learned, Four learned_strides, uintptr_t frozen,
                          Four frozen_strides, Four shape, int64_t num_learned, int slice_dim,
                          uintptr_t stream) {
    const Checks checks("pack_filters_cuda");
    const PackArguments a =
        pack_arguments("pack_filters_cuda", out, out_strides, learned, learned_strides, frozen,
                       frozen_strides, shape, num_learned, slice_dim);
    pack_filters_cuda(a.bank, a.learned, a.frozen, slice_dim, checks.type(out_type, kElementTypes),
                      stream);
}

} // namespace

void bind_pack_filters_cuda(py::module_& module) {
    module.def("pack_filters_cuda", &pack_filters_on_cuda);
}

} // namespace maskedconv
