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

// The elements of x.
int64_t check_pixels(const Checks& checks, const NormInput& n, uintptr_t x, int threads) {
    checks.between("channels", n.channels, 0);
    const int64_t elements = check_image(checks, "x", x, n.pixels, n.channels, n.x_pixel);
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
                      int64_t grad_x_pixel, bool adds, uintptr_t grad_weight, uintptr_t grad_bias,
                      int threads) {
    const NormInput input{floats(x), x_pixel, pixels, channels, floats(scale), floats(shift)};
    const Checks checks("bn_relu_backward");
    checks.memory("grad", grad, check_pixels(checks, input, x, threads));
    checks.memory("mean", mean, channels);
    checks.memory("inverse_deviation", inverse_deviation, channels);
    if (grad_x != 0)
        check_image(checks, "grad_x", grad_x, pixels, channels, grad_x_pixel);
    if (adds && grad_x == grad)
        checks.refuse("grad_x is the gradient itself; expected other memory, as it is added to");
    const NormBackward backward{floats(grad),
                                floats(mean),
                                floats(inverse_deviation),
                                of_batch,
                                {floats_to_write(grad_x), grad_x_pixel, adds},
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
