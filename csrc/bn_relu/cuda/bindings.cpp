#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bn_relu/cuda/bn_relu_cuda.h"
#include "common.h"
#include "common/bindings.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

using Image = std::tuple<uintptr_t, int64_t>; // address and distance of the pixels

float* floats(uintptr_t pointer) { return reinterpret_cast<float*>(pointer); }

NormShape shape_of(const Checks& checks, const std::string& type, int64_t pixels,
                   int64_t channels) {
    checks.between("pixels", pixels, 1, kMostNormPixels);
    checks.between("channels", channels, 1);
    return {pixels, static_cast<int>(channels), checks.type(type, kElementTypes)};
}

Pixels pixels_of(const Checks& checks, const char* name, const NormShape& shape,
                 const Image& image) {
    const auto [data, pitch] = image;
    checks.tensor(name, data, {1, 1, shape.pixels, shape.channels}, {0, 0, pitch, 1});
    if (shape.pixels > 1 && pitch < shape.channels)
        checks.refuse(std::string(name) + " has pixels " + std::to_string(pitch) +
                      " elements apart; expected at least " + std::to_string(shape.channels));
    return {reinterpret_cast<void*>(data), pitch};
}

NormStatistics statistics_of(const Checks& checks, const NormShape& shape, const Image& rows) {
    const auto [data, pitch] = rows;
    checks.tensor("statistics", data, {1, 1, 5, shape.channels}, {0, 0, pitch, 1});
    return {floats(data), pitch};
}

NormWorkspace workspace_of(const Checks& checks, uintptr_t sums, uintptr_t counters,
                           int multiprocessors) {
    checks.memory("sums", sums, 1);
    checks.memory("counters", counters, 1);
    checks.between("multiprocessors", multiprocessors, 1, kMostMultiprocessors);
    return {floats(sums), reinterpret_cast<unsigned*>(counters), multiprocessors};
}

Two workspace(int64_t pixels, int64_t channels, int multiprocessors) {
    const Checks checks("bn_relu_cuda_workspace");
    checks.between("multiprocessors", multiprocessors, 1, kMostMultiprocessors);
    return bn_relu_cuda_workspace(shape_of(checks, "float32", pixels, channels), multiprocessors);
}

// `parameters`: weight, bias, running mean, running variance, and the number of batches.
NormParameters parameters_of(const Checks& checks, const NormShape& shape,
                             const std::array<uintptr_t, 5>& parameters, float momentum,
                             float eps) {
    const auto [weight, bias, mean, var, batches] = parameters;
    if ((mean == 0) != (var == 0))
        checks.refuse("running mean and variance: one is null; expected both or none");
    checks.between("pixels", shape.pixels, mean != 0 ? 2 : 1, kMostNormPixels);
    if (mean != 0 && momentum < 0.0f)
        checks.memory("batches", batches, 1);
    return {floats(weight),
            floats(bias),
            floats(mean),
            floats(var),
            reinterpret_cast<int64_t*>(batches),
            momentum,
            eps};
}

// `sum`: summand and total, with address 0 for none.
void statistics(const std::string& type, int64_t pixels, int64_t channels, Image x,
                std::array<Image, 2> sum, std::array<uintptr_t, 5> parameters, float momentum,
                float eps, Image out, uintptr_t sums, uintptr_t counters, int multiprocessors,
                uintptr_t stream) {
    const Checks checks("bn_statistics_cuda");
    const NormShape shape = shape_of(checks, type, pixels, channels);
    const NormParameters p = parameters_of(checks, shape, parameters, momentum, eps);
    NormSum both{};
    if (std::get<0>(sum[0]) != 0)
        both = {pixels_of(checks, "summand", shape, sum[0]),
                pixels_of(checks, "total", shape, sum[1])};
    bn_statistics_cuda(shape, pixels_of(checks, "x", shape, x), both, p,
                       statistics_of(checks, shape, out),
                       workspace_of(checks, sums, counters, multiprocessors), stream);
}

void statistics_of_moments(int64_t pixels, int64_t channels, Image moments,
                           std::array<uintptr_t, 5> parameters, float momentum, float eps,
                           Image out, uintptr_t stream) {
    const Checks checks("bn_statistics_of_moments_cuda");
    const NormShape shape = shape_of(checks, "float32", pixels, channels);
    const auto [data, pitch] = moments;
    checks.tensor("moments", data, {1, 1, 2, channels}, {0, 0, pitch, 1});
    const NormParameters p = parameters_of(checks, shape, parameters, momentum, eps);
    bn_statistics_of_moments_cuda(shape, {floats(data), pitch}, p,
                                  statistics_of(checks, shape, out), stream);
}

void forward(const std::string& type, int64_t pixels, int64_t channels, Image x, Image rows,
             Image out, int multiprocessors, uintptr_t stream) {
    const Checks checks("bn_relu_cuda");
    const NormShape shape = shape_of(checks, type, pixels, channels);
    checks.between("multiprocessors", multiprocessors, 1, kMostMultiprocessors);
    bn_relu_cuda(shape, pixels_of(checks, "x", shape, x), statistics_of(checks, shape, rows),
                 pixels_of(checks, "out", shape, out), multiprocessors, stream);
}

// `grad_x` of address 0 is not computed, nor is `grad_weight` or `grad_bias`.
void backward(const std::string& type, int64_t pixels, int64_t channels, Image x, Image grad,
              Image rows, bool uses_batch_stats, Image grad_x, Image added, uintptr_t grad_weight,
              uintptr_t grad_bias, uintptr_t coefficients, uintptr_t sums, uintptr_t counters,
              int multiprocessors, uintptr_t stream) {
    const Checks checks("bn_relu_backward_cuda");
    const NormShape shape = shape_of(checks, type, pixels, channels);
    checks.memory("coefficients", coefficients, 2 * channels);
    const auto given = [&](const char* name, const Image& image) {
        return std::get<0>(image) == 0 ? Pixels{nullptr, 0} : pixels_of(checks, name, shape, image);
    };
    const NormGradients gradients{given("grad_x", grad_x), given("added", added),
                                  floats(grad_weight),     floats(grad_bias),
                                  uses_batch_stats,        floats(coefficients)};
    bn_relu_backward_cuda(shape, pixels_of(checks, "x", shape, x),
                          pixels_of(checks, "grad", shape, grad),
                          statistics_of(checks, shape, rows), gradients,
                          workspace_of(checks, sums, counters, multiprocessors), stream);
}

} // namespace

void bind_bn_relu_cuda(py::module_& module) {
    module.def("bn_relu_cuda_workspace", &workspace);
    module.def("bn_statistics_cuda", &statistics, WithoutGil());
    module.def("bn_statistics_of_moments_cuda", &statistics_of_moments, WithoutGil());
    module.def("bn_relu_cuda", &forward, WithoutGil());
    module.def("bn_relu_backward_cuda", &backward, WithoutGil());
}

} // namespace maskedconv
