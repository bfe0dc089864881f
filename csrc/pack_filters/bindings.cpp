#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "pack_filters/arguments.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

void pack_filters(uintptr_t out, Four out_strides, int64_t out_size, int64_t in_size,
                  uintptr_t learned, Four learned_strides, uintptr_t frozen, Four frozen_strides,
                  Four shape, int64_t num_learned, int slice_dim) {
    const PackKind kind = pack_kind(in_size, out_size);
    const PackArguments a =
        pack_arguments("pack_filters", out, out_strides, learned, learned_strides, frozen,
                       frozen_strides, shape, num_learned, slice_dim);
    py::gil_scoped_release release;
    for (const FilterPart& part : {a.learned, a.frozen})
        pack_filters_cpu(a.bank, part, slice_dim, kind);
}

} // namespace

void bind_pack_filters(py::module_& module) { module.def("pack_filters", &pack_filters); }

} // namespace maskedconv
