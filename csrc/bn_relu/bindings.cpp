#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "bn_relu/bn_relu.h"
#include "common.h"

namespace py = pybind11;

namespace maskedconv {
namespace {

const float* floats(uintptr_t pointer) { return reinterpret_cast<const float*>(pointer); }
float* floats_to_write(uintptr_t pointer) { return reinterpret_cast<float*>(pointer); }

// The elements of x: `pixels` of `channels` channels.
int64_t check_pixels(const Checks& checks, const NormInput& n, uintptr_t x, int threads) {
    checks.between("channels", n.channels, 0);
    const int64_t elements =
        checks.tensor("x", x, {1, 1, n.pixels, n.channels}, {0, 0, n.x_pixel, 1});
    if (elements > 0 && n.pixels > 1 && n.x_pixel < n.channels)
        checks.refuse("x_pixel is " + std::to_string(n.x_pixel) + "; expected at least " +
                      std::to_string(n.channels));
    checks.memory("scale", reinterpret_cast<uintptr_t>(n.scale), n.channels);
    checks.memory("shift", reinterpret_cast<uintptr_t>(n.shift), n.channels);
    checks.between("threads", threads, 1);
    return elements;
}

void bn_relu(uintptr_t x, int64_t x_pixel, int64_t pixels, int64_t channels, uintptr_t scale,
             uintptr_t shift, uintptr_t out, int threads) {
    const NormInput input{floats(x), x_pixel, pixels, channels, floats(scale), floats(shift)};
    const Checks checks("bn_relu");
    checks.memory("out", out, check_pixels(checks, input, x, threads));
    py::gil_scoped_release release;
    bn_relu_cpu(input, floats_to_write(out), threads);
}

void bn_relu_backward(uintptr_t x, int64_t x_pixel, int64_t pixels, int64_t channels,
                      uintptr_t scale, uintptr_t shift, uintptr_t grad, uintptr_t mean,
                      uintptr_t inverse_deviation, bool of_batch, uintptr_t grad_x,
                      uintptr_t grad_weight, uintptr_t grad_bias, int threads) {
    const NormInput input{floats(x), x_pixel, pixels, channels, floats(scale), floats(shift)};
    const Checks checks("bn_relu_backward");
    checks.memory("grad", grad, check_pixels(checks, input, x, threads));
    checks.memory("mean", mean, channels);
    checks.memory("inverse_deviation", inverse_deviation, channels);
    const NormBackward backward{floats(grad),
                                floats(mean),
                                floats(inverse_deviation),
                                of_batch,
                                floats_to_write(grad_x),
                                floats_to_write(grad_weight),
                                floats_to_write(grad_bias)};
    py::gil_scoped_release release;
    bn_relu_backward_cpu(input, backward, threads);
}

} // namespace

void bind_bn_relu(py::module_& module) {
    module.def("bn_relu", &bn_relu);
    module.def("bn_relu_backward", &bn_relu_backward);
}

} // namespace maskedconv
