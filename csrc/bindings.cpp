// maskedconv._C: raw pointers and sizes in, nothing of torch. Callers check what they pass.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <string>

#include "pack_filters.h"
#ifdef MASKEDCONV_WITH_CUDA
#include "cuda/pack_filters_cuda.h"
#endif

namespace py = pybind11;

namespace maskedconv {
namespace {

void pack_filters(uintptr_t out, Four out_strides, int64_t out_size, int64_t in_size,
                  uintptr_t learned, Four learned_strides, uintptr_t frozen, Four frozen_strides,
                  Four shape, int64_t num_learned, int slice_dim) {
    const PackKind kind = pack_kind(in_size, out_size);
    const FilterBank bank{reinterpret_cast<void*>(out), out_strides, shape};
    const FilterPart parts[] = {
        {reinterpret_cast<const void*>(learned), learned_strides, 0, num_learned},
        {reinterpret_cast<const void*>(frozen), frozen_strides, num_learned, shape[slice_dim]},
    };
    py::gil_scoped_release release;
    for (const FilterPart& part : parts)
        pack_filters_cpu(bank, part, slice_dim, kind);
}

#ifdef MASKEDCONV_WITH_CUDA
void pack_filters_on_cuda(uintptr_t out, Four out_strides, const std::string& out_type,
                          uintptr_t learned, Four learned_strides, uintptr_t frozen,
                          Four frozen_strides, Four shape, int64_t num_learned, int slice_dim,
                          uintptr_t stream) {
    static const std::map<std::string, CudaType> types = {{"float32", CudaType::float32},
                                                          {"bfloat16", CudaType::bfloat16},
                                                          {"float16", CudaType::float16}};
    const FilterBank bank{reinterpret_cast<void*>(out), out_strides, shape};
    const FilterPart first{reinterpret_cast<const void*>(learned), learned_strides, 0, num_learned};
    const FilterPart rest{reinterpret_cast<const void*>(frozen), frozen_strides, num_learned,
                          shape[slice_dim]};
    pack_filters_cuda(bank, first, rest, slice_dim, types.at(out_type), stream);
}
#endif

py::dict build_info() {
    py::dict info;
    info["compiler"] = MASKEDCONV_COMPILER;
    info["cuda_archs"] = MASKEDCONV_CUDA_ARCHS;
    return info;
}

} // namespace
} // namespace maskedconv

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of maskedconv; pointers are integers, strides in elements.";
    module.def("pack_filters", &maskedconv::pack_filters);
#ifdef MASKEDCONV_WITH_CUDA
    module.def("pack_filters_cuda", &maskedconv::pack_filters_on_cuda);
#endif
    module.def("build_info", &maskedconv::build_info,
               "The compiler, and the CUDA architectures (empty: built without CUDA).");
}
