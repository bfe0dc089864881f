#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common.h"
#include "common/bindings.h"
#include "pack_filters/cuda/pack_filters_cuda.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

// `begin` and `end` of the slice dimension of a bank of `shape`.
FilterPart filter_part(const Checks& checks, const char* name, uintptr_t data, const Four& strides,
                       Four shape, int slice_dim, int64_t begin, int64_t end) {
    shape[static_cast<size_t>(slice_dim)] = end - begin;
    checks.tensor(name, data, shape, strides);
    return {reinterpret_cast<const void*>(data), strides, begin, end};
}

void pack_filters_on_cuda(uintptr_t out, Four out_strides, const std::string& out_type,
                          uintptr_t learned, Four learned_strides, uintptr_t frozen,
                          Four frozen_strides, Four shape, int64_t num_learned, int slice_dim,
                          uintptr_t stream) {
    const Checks checks("pack_filters_cuda");
    const ElementType type = checks.type(out_type, kElementTypes);
    checks.between("slice_dim", slice_dim, 0, 3);
    checks.tensor("out", out, shape, out_strides);
    const int64_t all = shape[static_cast<size_t>(slice_dim)];
    checks.between("num_learned", num_learned, 0, all);
    const FilterPart first =
        filter_part(checks, "learned", learned, learned_strides, shape, slice_dim, 0, num_learned);
    const FilterPart rest =
        filter_part(checks, "frozen", frozen, frozen_strides, shape, slice_dim, num_learned, all);
    pack_filters_cuda({reinterpret_cast<void*>(out), out_strides, shape}, first, rest, slice_dim,
                      type, stream);
}

} // namespace

void bind_pack_filters_cuda(py::module_& module) {
    module.def("pack_filters_cuda", &pack_filters_on_cuda, WithoutGil());
    module.def("pack_filters_cuda_error", &pack_filters_cuda_error, WithoutGil());
}

} // namespace maskedconv
