// maskedconv._C: raw pointers and sizes in, nothing of torch. common/checks.h checks arguments.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <exception>
#include <string>
#include <utility>
#include <vector>

#include "common.h"
#ifdef MASKEDCONV_EMULATION
#include "common/cuda/device.h"
#endif

namespace py = pybind11;

namespace maskedconv {
namespace {

std::vector<std::string> names_of(const std::vector<Isa>& isas) {
    std::vector<std::string> names;
    for (const Isa isa : isas)
        names.push_back(name_of(isa));
    return names;
}

// The instruction set in use is empty if the variable is wrong; the error then says how.
py::dict build_info() {
    py::dict info;
    info["compiler"] = MASKEDCONV_COMPILER;
    info["isas_built"] = names_of(built_isas());
    info["isas_available"] = names_of(available_isas());
    info["isa"] = "", info["isa_error"] = "";
    try {
        info["isa"] = name_of(chosen_isa());
    } catch (const std::exception& error) {
        info["isa_error"] = error.what();
    }
    info["cuda_archs"] = MASKEDCONV_CUDA_ARCHS;
    return info;
}

} // namespace

// Declares bind_<name>, which stands in a bindings.cpp of the operator's folder, and calls it.
#define BIND(name)                                                                                 \
    void bind_##name(py::module_&);                                                                \
    bind_##name(module)

// The operators: a line for each bindings.cpp, of kernels for the CPU or for CUDA.
static void bind_operators(py::module_& module) {
#ifndef MASKEDCONV_EMULATION // its module has only the CUDA kernels
    BIND(bn_relu);
    BIND(masked_weight);
    BIND(weight_grad);
#endif
#ifdef MASKEDCONV_WITH_CUDA
    BIND(bn_relu_cuda);
    BIND(masked_weight_cuda);
    BIND(pack_filters_cuda);
    BIND(weight_grad_cuda);
    BIND(weight_grad_wgmma);
#endif
}

#undef BIND

#ifdef MASKEDCONV_EMULATION
// For bench/launches.py.
static void bind_launches(py::module_& module) {
    module.def("count_launches_only", [](bool only) { executes = !only; });
    module.def("take_launches", [] { return std::exchange(launches, {}); });
}
#endif

} // namespace maskedconv

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of maskedconv; pointers are integers, strides in elements.";
    maskedconv::bind_operators(module);
#ifdef MASKEDCONV_EMULATION
    maskedconv::bind_launches(module);
#endif
    module.def(
        "build_info", &maskedconv::build_info,
        "The compiler, the instruction set in use (or why none is), those that are built and "
        "that this processor has, and the CUDA architectures (empty: built without CUDA).");
}
