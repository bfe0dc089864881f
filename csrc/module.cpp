// maskedconv._C: raw pointers and sizes in, nothing of torch. See checks.h for what is checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>

#include "bn_relu.h"
#include "checks.h"
#include "pack_filters.h"
#include "weight_grad.h"
#ifdef MASKEDCONV_WITH_CUDA
#include "cuda/pack_filters_cuda.h"
#include "cuda/weight_grad_cuda.h"
#endif

namespace py = pybind11;

namespace maskedconv {
namespace {

// `begin` and `end` of the slice dimension of a bank of `shape`.
FilterPart filter_part(const Checks& checks, const char* name, uintptr_t data, Four strides,
                       Four shape, int slice_dim, int64_t begin, int64_t end) {
    shape[static_cast<size_t>(slice_dim)] = end - begin;
    checks.tensor(name, data, shape, strides);
    return {reinterpret_cast<const void*>(data), strides, begin, end};
}

struct PackArguments {
    FilterBank bank;
    FilterPart learned, frozen;
};

PackArguments pack_arguments(const char* operation, uintptr_t out, Four out_strides,
                             uintptr_t learned, Four learned_strides, uintptr_t frozen,
                             Four frozen_strides, Four shape, int64_t num_learned, int slice_dim) {
    const Checks checks(operation);
    checks.between("slice_dim", slice_dim, 0, 3);
    checks.tensor("out", out, shape, out_strides);
    const int64_t all = shape[static_cast<size_t>(slice_dim)];
    checks.between("num_learned", num_learned, 0, all);
    return {
        {reinterpret_cast<void*>(out), out_strides, shape},
        filter_part(checks, "learned", learned, learned_strides, shape, slice_dim, 0, num_learned),
        filter_part(checks, "frozen", frozen, frozen_strides, shape, slice_dim, num_learned, all)};
}

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

using Two = std::array<int64_t, 2>;

int64_t output_size(int64_t input, int64_t kernel, int64_t stride, int64_t padding,
                    int64_t dilation) {
    const int64_t room = input + 2 * padding - dilation * (kernel - 1) - 1;
    return room < 0 ? 0 : room / stride + 1;
}

// Sizes alone. Filters are those of `shape`, [n, C, kH, kW]; x is [N, C, H, W].
WeightGrad weight_grad_sizes(const Checks& checks, Four x_shape, Four shape, Two stride,
                             Two padding, Two dilation) {
    for (size_t dim = 0; dim < 4; ++dim) {
        checks.between("a size of x", x_shape[dim], 0);
        checks.between("a size of the filters", shape[dim], dim < 2 ? 0 : 1);
    }
    checks.equal("the filters' number of channels", shape[1], x_shape[1]);
    for (size_t i = 0; i < 2; ++i) {
        checks.between("stride", stride[i], 1);
        checks.between("padding", padding[i], 0);
        checks.between("dilation", dilation[i], 1);
    }
    WeightGrad p{};
    p.batch = x_shape[0], p.channels = x_shape[1], p.filters = shape[0];
    p.input = {x_shape[2], x_shape[3]}, p.kernel = {shape[2], shape[3]};
    p.stride = {stride[0], stride[1]}, p.padding = {padding[0], padding[1]};
    p.dilation = {dilation[0], dilation[1]};
    p.output = {output_size(x_shape[2], shape[2], stride[0], padding[0], dilation[0]),
                output_size(x_shape[3], shape[3], stride[1], padding[1], dilation[1])};
    return p;
}

// Shapes and strides are those of the tensors; filters are the first channels of `grad`,
// [N, O, Ho, Wo].
WeightGrad weight_grad_problem(const Checks& checks, uintptr_t x, Four x_shape, Four x_strides,
                               uintptr_t grad, Four grad_shape, Four grad_strides, Four shape,
                               Two stride, Two padding, Two dilation, uintptr_t scale,
                               uintptr_t shift, uintptr_t out) {
    WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    const int64_t elements = checks.tensor("x", x, x_shape, x_strides);
    if (x_strides[1] != 1 && x_shape[1] > 1 && elements > 0)
        checks.refuse("the channels of x lie " + std::to_string(x_strides[1]) +
                      " elements apart; expected them side by side");
    checks.tensor("grad", grad, grad_shape, grad_strides);
    checks.equal("the number of images of grad", grad_shape[0], p.batch);
    checks.between("the number of channels of grad", grad_shape[1], p.filters);
    checks.equal("the number of rows of grad", grad_shape[2], p.output.rows);
    checks.equal("the number of columns of grad", grad_shape[3], p.output.columns);
    checks.tensor("out", out, shape, {});
    if (scale != 0 || shift != 0) {
        checks.memory("scale", scale, p.channels);
        checks.memory("shift", shift, p.channels);
    }
    p.x = reinterpret_cast<const void*>(x);
    p.x_image = x_strides[0], p.x_row = x_strides[2], p.x_pixel = x_strides[3];
    p.grad_output = reinterpret_cast<const void*>(grad);
    p.grad_image = grad_strides[0], p.grad_channel = grad_strides[1];
    p.grad_row = grad_strides[2], p.grad_pixel = grad_strides[3];
    p.scale = reinterpret_cast<const float*>(scale);
    p.shift = reinterpret_cast<const float*>(shift);
    p.out = reinterpret_cast<float*>(out);
    return p;
}

bool weight_grad(const std::string& type, uintptr_t x, Four x_shape, Four x_strides, uintptr_t grad,
                 Four grad_shape, Four grad_strides, Four shape, Two stride, Two padding,
                 Two dilation, uintptr_t scale, uintptr_t shift, uintptr_t out, int threads) {
    const Checks checks("weight_grad");
    if (type != "float32" && type != "bfloat16")
        checks.refuse("type is " + type + "; expected float32 or bfloat16");
    checks.between("threads", threads, 1);
    WeightGrad p =
        weight_grad_problem(checks, x, x_shape, x_strides, grad, grad_shape, grad_strides, shape,
                            stride, padding, dilation, scale, shift, out);
    p.type = type == "float32" ? Element::float32 : Element::bfloat16;
    py::gil_scoped_release release;
    return weight_grad_cpu(p, threads);
}

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

#ifdef MASKEDCONV_WITH_CUDA
CudaType cuda_type(const Checks& checks, const std::string& name) {
    static const std::map<std::string, CudaType> types = {{"float32", CudaType::float32},
                                                          {"bfloat16", CudaType::bfloat16},
                                                          {"float16", CudaType::float16}};
    const auto found = types.find(name);
    if (found == types.end())
        checks.refuse("type is " + name + "; expected float32, bfloat16 or float16");
    return found->second;
}

void pack_filters_on_cuda(uintptr_t out, Four out_strides, const std::string& out_type,
                          uintptr_t learned, Four learned_strides, uintptr_t frozen,
                          Four frozen_strides, Four shape, int64_t num_learned, int slice_dim,
                          uintptr_t stream) {
    const Checks checks("pack_filters_cuda");
    const PackArguments a =
        pack_arguments("pack_filters_cuda", out, out_strides, learned, learned_strides, frozen,
                       frozen_strides, shape, num_learned, slice_dim);
    pack_filters_cuda(a.bank, a.learned, a.frozen, slice_dim, cuda_type(checks, out_type), stream);
}

// The kernel divides the pixels among tiles: there must be some.
void check_not_empty(const Checks& checks, const WeightGrad& p) {
    for (const int64_t size : {p.batch, p.channels, p.filters, p.input.rows, p.input.columns,
                               p.output.rows, p.output.columns})
        if (size == 0)
            checks.refuse("there is nothing to add up");
}

// Of the GPU: its multiprocessors, and the bytes of shared memory that a block may have.
int weight_grad_splits_on_cuda(const std::string& type, Four x_shape, Four shape, Two stride,
                               Two padding, Two dilation, int multiprocessors, int shared_bytes) {
    const Checks checks("weight_grad_cuda_splits");
    const WeightGrad p = weight_grad_sizes(checks, x_shape, shape, stride, padding, dilation);
    check_not_empty(checks, p);
    return weight_grad_cuda_splits(p, cuda_type(checks, type), {multiprocessors, shared_bytes});
}

void weight_grad_on_cuda(const std::string& type, uintptr_t x, Four x_shape, Four x_strides,
                         uintptr_t grad, Four grad_shape, Four grad_strides, Four shape, Two stride,
                         Two padding, Two dilation, uintptr_t scale, uintptr_t shift, uintptr_t out,
                         uintptr_t workspace, int multiprocessors, int shared_bytes,
                         uintptr_t stream) {
    const Checks checks("weight_grad_cuda");
    const WeightGrad p =
        weight_grad_problem(checks, x, x_shape, x_strides, grad, grad_shape, grad_strides, shape,
                            stride, padding, dilation, scale, shift, out);
    check_not_empty(checks, p);
    const CudaType element = cuda_type(checks, type);
    const CudaLimits limits{multiprocessors, shared_bytes};
    checks.memory("workspace", workspace, weight_grad_cuda_splits(p, element, limits) - 1);
    weight_grad_cuda(p, element, limits, reinterpret_cast<float*>(workspace), stream);
}
#endif

std::vector<std::string> names_of(const std::vector<const Kernels*>& sets) {
    std::vector<std::string> names;
    for (const Kernels* set : sets)
        names.push_back(set->isa);
    return names;
}

// The instruction set in use is empty where the variable is wrong; the error then says how.
py::dict build_info() {
    py::dict info;
    info["compiler"] = MASKEDCONV_COMPILER;
    info["isas_built"] = names_of(built_kernels());
    info["isas_available"] = names_of(available_kernels());
    info["isa"] = "", info["isa_error"] = "";
    try {
        info["isa"] = chosen_kernels().isa;
    } catch (const std::exception& error) {
        info["isa_error"] = error.what();
    }
    info["cuda_archs"] = MASKEDCONV_CUDA_ARCHS;
    return info;
}

} // namespace
} // namespace maskedconv

PYBIND11_MODULE(_C, module) {
    module.doc() = "Compiled kernels of maskedconv; pointers are integers, strides in elements.";
    module.def("pack_filters", &maskedconv::pack_filters);
    module.def("weight_grad", &maskedconv::weight_grad);
    module.def("bn_relu", &maskedconv::bn_relu);
    module.def("bn_relu_backward", &maskedconv::bn_relu_backward);
#ifdef MASKEDCONV_WITH_CUDA
    module.def("pack_filters_cuda", &maskedconv::pack_filters_on_cuda);
    module.def("weight_grad_cuda", &maskedconv::weight_grad_on_cuda);
    module.def("weight_grad_cuda_splits", &maskedconv::weight_grad_splits_on_cuda);
#endif
    module.def(
        "build_info", &maskedconv::build_info,
        "The compiler, the instruction set in use (or why none is), those that are built and "
        "that this processor has, and the CUDA architectures (empty: built without CUDA).");
}
