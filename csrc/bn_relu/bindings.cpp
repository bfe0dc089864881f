#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <string>
#include <tuple>

#include "bn_relu/bn_relu.h"
#include "bn_relu/statistics.h"
#include "common.h"
#include "common/bindings.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

// The elements of a tensor: `pixels` of `channels` channels, `pitch` apart.
int64_t check_image(const Checks& checks, const std::string& name, uintptr_t data, int64_t pixels,
                    int64_t channels, int64_t pitch) {
    const int64_t elements =
        checks.tensor(name.c_str(), data, {1, 1, pixels, channels}, {0, 0, pitch, 1});
    if (elements > 0 && pixels > 1 && pitch < channels)
        checks.refuse(name + "_pixel is " + std::to_string(pitch) + "; expected at least " +
                      std::to_string(channels));
    return elements;
}

// The input that is described by addresses, checked.
template <typename T>
NormInput<T> input_of(const Checks& checks, uintptr_t x, int64_t x_pixel, int64_t pixels,
                      int64_t channels, uintptr_t scale, uintptr_t shift) {
    checks.between("channels", channels, 0);
    check_image(checks, "x", x, pixels, channels, x_pixel);
    checks.memory("scale", scale, channels);
    checks.memory("shift", shift, channels);
    return {read<T>(x), x_pixel, pixels, channels, read(scale), read(shift)};
}

// Address of a tensor's first element, and the distance of its pixels, or of a table's rows.
using Image = std::tuple<uintptr_t, int64_t>;
// Addresses of gamma, beta, running mean and variance, and the number of batches; 0 for none.
using State = std::array<uintptr_t, 5>;

NormTable table_of(const Checks& checks, int64_t channels, Image table) {
    const auto [data, row] = table;
    checks.tensor("table", data, {1, 1, 5, channels}, {0, 0, row, 1});
    return {written(data), row};
}

// A negative momentum is the mean over all batches.
NormState state_of(const Checks& checks, int64_t pixels, const State& state, float momentum,
                   float eps) {
    const auto [weight, bias, mean, var, batches] = state;
    if ((mean == 0) != (var == 0))
        checks.refuse("running mean and variance: one is null; expected both or none");
    if (mean != 0 && momentum < 0 && batches == 0)
        checks.refuse("batches is null; expected their number, as momentum is negative");
    checks.between("pixels", pixels, mean != 0 ? 2 : 1);
    return {read(weight), read(bias), written(mean), written(var), written<int64_t>(batches),
            momentum,     eps};
}

// If `summand` and `total` have address 0, the statistics are of x itself.
void bn_statistics(const std::string& type, Image x, int64_t pixels, int64_t channels,
                   Image summand, Image total, const State& state, float momentum, float eps,
                   Image table, int threads) {
    const Checks checks("bn_statistics");
    for_type(checks, type, [&](auto element) {
        using T = decltype(element);
        checks.between("channels", channels, 0);
        const NormState norm = state_of(checks, pixels, state, momentum, eps);
        const NormTable rows = table_of(checks, channels, table);
        checks.between("threads", threads, 1);
        const auto pixels_of = [&](const char* name, const Image& image) {
            check_image(checks, name, std::get<0>(image), pixels, channels, std::get<1>(image));
            return std::get<0>(image);
        };
        MomentsInput<T> input{read<T>(pixels_of("x", x)), std::get<1>(x), pixels, channels};
        if (std::get<0>(summand) != 0) {
            input.summand = read<T>(pixels_of("summand", summand));
            input.summand_pixel = std::get<1>(summand);
            input.total = written<T>(pixels_of("total", total));
            input.total_pixel = std::get<1>(total);
        }
        py::gil_scoped_release release;
        batch_moments_cpu(input, rows, threads);
        bn_statistics_of_moments_cpu(pixels, channels, norm, rows);
    });
}

// Computes the other rows of the table from the first two.
void bn_statistics_of_moments(int64_t pixels, int64_t channels, const State& state, float momentum,
                              float eps, Image table) {
    const Checks checks("bn_statistics_of_moments");
    checks.between("channels", channels, 0);
    bn_statistics_of_moments_cpu(pixels, channels, state_of(checks, pixels, state, momentum, eps),
                                 table_of(checks, channels, table));
}

void bn_relu(const std::string& type, uintptr_t x, int64_t x_pixel, int64_t pixels,
             int64_t channels, uintptr_t scale, uintptr_t shift, uintptr_t out, int threads) {
    const Checks checks("bn_relu");
    for_type(checks, type, [&](auto element) {
        using T = decltype(element);
        const auto input = input_of<T>(checks, x, x_pixel, pixels, channels, scale, shift);
        checks.between("threads", threads, 1);
        checks.memory("out", out, pixels * channels);
        py::gil_scoped_release release;
        bn_relu_cpu(input, written<T>(out), threads);
    });
}

void bn_relu_backward(const std::string& type, uintptr_t x, int64_t x_pixel, int64_t pixels,
                      int64_t channels, uintptr_t scale, uintptr_t shift, uintptr_t grad,
                      uintptr_t mean, uintptr_t inverse_deviation, bool of_batch, uintptr_t grad_x,
                      int64_t grad_x_pixel, uintptr_t added, int64_t added_pixel,
                      uintptr_t grad_weight, uintptr_t grad_bias, int threads) {
    const Checks checks("bn_relu_backward");
    for_type(checks, type, [&](auto element) {
        using T = decltype(element);
        const auto input = input_of<T>(checks, x, x_pixel, pixels, channels, scale, shift);
        checks.between("threads", threads, 1);
        checks.memory("grad", grad, pixels * channels);
        checks.memory("mean", mean, channels);
        checks.memory("inverse_deviation", inverse_deviation, channels);
        if (grad_x != 0)
            check_image(checks, "grad_x", grad_x, pixels, channels, grad_x_pixel);
        if (added != 0)
            check_image(checks, "added", added, pixels, channels, added_pixel);
        if (added != 0 && added == grad)
            checks.refuse("added is the gradient itself; expected another tensor to add");
        const NormBackward<T> backward{
            read<T>(grad),
            read(mean),
            read(inverse_deviation),
            of_batch,
            {written<T>(grad_x), grad_x_pixel, read<T>(added), added_pixel},
            written(grad_weight),
            written(grad_bias)};
        py::gil_scoped_release release;
        bn_relu_backward_cpu(input, backward, threads);
    });
}

} // namespace

void bind_bn_relu(py::module_& module) {
    module.def("bn_statistics", &bn_statistics);
    module.def("bn_statistics_of_moments", &bn_statistics_of_moments);
    module.def("bn_relu", &bn_relu);
    module.def("bn_relu_backward", &bn_relu_backward);
}

} // namespace maskedconv
