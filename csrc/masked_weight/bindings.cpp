#include <pybind11/pybind11.h>

#include <string>

#include "common.h"
#include "common/bindings.h"
#include "masked_weight/masked_weight.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

void check_elements(const Checks& checks, int64_t elements, int threads) {
    checks.between("elements", elements, 0);
    checks.between("threads", threads, 1);
}

void find_threshold(uintptr_t score, int64_t elements, int64_t num_kept, uintptr_t value,
                    uintptr_t first, int threads) {
    const Checks checks("find_threshold");
    check_elements(checks, elements, threads);
    checks.between("num_kept", num_kept, 1, elements);
    checks.memory("score", score, elements);
    checks.memory("value", value, 1);
    checks.memory("first", first, 1);
    py::gil_scoped_release release;
    const ScoreThreshold found = find_threshold_cpu(read(score), elements, num_kept, threads);
    *written(value) = found.value;
    *written<int64_t>(first) = found.first;
}

void masked_weight(const std::string& type, uintptr_t weight, uintptr_t score, int64_t elements,
                   uintptr_t value, uintptr_t first, bool binary, double scale, uintptr_t out,
                   int threads) {
    const Checks checks("masked_weight");
    check_elements(checks, elements, threads);
    checks.memory("weight", weight, elements);
    checks.memory("score", score, elements);
    checks.memory("value", value, 1);
    checks.memory("first", first, 1);
    checks.memory("out", out, elements);
    for_type(checks, type, [&](auto element) {
        py::gil_scoped_release release;
        const ScoreThreshold threshold{*read(value), *read<int64_t>(first)};
        masked_weight_cpu(
            MaskedWeight{read(weight), read(score), elements, threshold, binary, scale},
            written<decltype(element)>(out), threads);
    });
}

void score_grad(const std::string& type, uintptr_t grad, uintptr_t weight, uintptr_t score,
                int64_t elements, bool binary, float scale, uintptr_t out, int threads) {
    const Checks checks("score_grad");
    check_elements(checks, elements, threads);
    checks.memory("grad", grad, elements);
    checks.memory("weight", weight, elements);
    checks.memory("score", score, elements);
    checks.memory("out", out, elements);
    for_type(checks, type, [&](auto element) {
        using T = decltype(element);
        py::gil_scoped_release release;
        const ScoreGrad<T> problem{read<T>(grad), read(weight), read(score), elements, scale};
        score_grad_cpu(problem, binary, written(out), threads);
    });
}

} // namespace

void bind_masked_weight(py::module_& module) {
    module.def("find_threshold", &find_threshold);
    module.def("masked_weight", &masked_weight);
    module.def("score_grad", &score_grad);
}

} // namespace maskedconv
