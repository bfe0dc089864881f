#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "common.h"
#include "common/bindings.h"
#include "masked_weight/cuda/masked_weight_cuda.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

template <typename T = float> T* at(uintptr_t pointer) { return reinterpret_cast<T*>(pointer); }

void check_elements(const Checks& checks, int64_t elements) {
    checks.between("elements", elements, 1);
}

MaskMemory memory_of(const Checks& checks, const Four& sizes, const Four& steps) {
    int64_t elements = 1;
    for (size_t k = 0; k < 4; ++k) {
        checks.between("size", sizes[k], 1);
        checks.between("step", steps[k], 0);
        elements *= sizes[k];
        check_elements(checks, elements);
    }
    return {elements, sizes, steps};
}

DeviceThreshold threshold_of(const Checks& checks, uintptr_t value, uintptr_t first) {
    checks.memory("value", value, 1);
    checks.memory("first", first, 1);
    return {at(value), at<int64_t>(first)};
}

Two space(int64_t elements) {
    check_elements(Checks("find_threshold_cuda_space"), elements);
    return find_threshold_cuda_space(elements);
}

void find_threshold(uintptr_t score, Four sizes, Four steps, int64_t num_kept, uintptr_t value,
                    uintptr_t first, uintptr_t counts, uintptr_t states, uintptr_t stream) {
    const Checks checks("find_threshold_cuda");
    const MaskMemory memory = memory_of(checks, sizes, steps);
    checks.between("num_kept", num_kept, 1, memory.elements);
    checks.memory("score", score, memory.elements);
    checks.memory("counts", counts, 1);
    checks.memory("states", states, 1);
    find_threshold_cuda(at(score), memory, num_kept, threshold_of(checks, value, first),
                        {at<unsigned>(counts), at<unsigned>(states)}, stream);
}

// `parts` is 0 unless the mask is binary.
void masked_weight(const std::string& type, uintptr_t weight, uintptr_t score, Four sizes,
                   Four steps, uintptr_t value, uintptr_t first, double scale, uintptr_t out,
                   uintptr_t parts, uintptr_t stream) {
    const Checks checks("masked_weight_cuda");
    const MaskMemory memory = memory_of(checks, sizes, steps);
    checks.memory("weight", weight, memory.elements);
    checks.memory("score", score, memory.elements);
    checks.memory("out", out, memory.elements);
    masked_weight_cuda({at(weight), at(score), at<void>(out), at<KeptPart>(parts)}, memory,
                       threshold_of(checks, value, first), scale, checks.type(type, kElementTypes),
                       stream);
}

void score_grad(const std::string& type, uintptr_t grad, uintptr_t weight, uintptr_t score,
                int64_t elements, bool binary, float scale, uintptr_t out, uintptr_t stream) {
    const Checks checks("score_grad_cuda");
    check_elements(checks, elements);
    checks.memory("grad", grad, elements);
    checks.memory("weight", weight, elements);
    checks.memory("score", score, elements);
    checks.memory("out", out, elements);
    score_grad_cuda({at<void>(grad), at(weight), at(score), at(out)}, elements, binary, scale,
                    checks.type(type, kElementTypes), stream);
}

} // namespace

void bind_masked_weight_cuda(py::module_& module) {
    module.attr("MASKED_WEIGHT_CUDA_PARTS") = kKeptParts;
    module.def("find_threshold_cuda_space", &space);
    module.def("find_threshold_cuda", &find_threshold, WithoutGil());
    module.def("masked_weight_cuda", &masked_weight, WithoutGil());
    module.def("score_grad_cuda", &score_grad, WithoutGil());
}

} // namespace maskedconv
