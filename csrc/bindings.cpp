// maskedconv._C: raw pointers and sizes in, nothing of torch. Callers check what they pass.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>

#include "bn_relu.h"
#include "pack_filters.h"
#include "weight_grad.h"
#ifdef MASKEDCONV_WITH_CUDA
#include "cuda/pack_filters_cuda.h"
#include "cuda/weight_grad_cuda.h"
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

using Two = std::array<int64_t, 2>;

// Shapes and strides are those of the tensors, [N, C, H, W]; filters are the first of C of `grad`.
WeightGrad weight_grad_problem(uintptr_t x, Four x_shape, Four x_strides, uintptr_t grad,
                               Four grad_shape, Four grad_strides, int64_t filters, Two kernel,
                               Two stride, Two padding, Two dilation, uintptr_t scale,
                               uintptr_t shift, uintptr_t out) {
    if (x_strides[1] != 1 && x_shape[1] > 1)
        throw std::invalid_argument("weight_grad: the channels of x must lie side by side");
    WeightGrad p{};
    p.x = reinterpret_cast<const void*>(x);
    p.x_image = x_strides[0], p.x_row = x_strides[2], p.x_pixel = x_strides[3];
    p.grad_output = reinterpret_cast<const void*>(grad);
    p.grad_image = grad_strides[0], p.grad_channel = grad_strides[1];
    p.grad_row = grad_strides[2], p.grad_pixel = grad_strides[3];
    p.batch = x_shape[0], p.channels = x_shape[1], p.filters = filters;
    p.input = {x_shape[2], x_shape[3]}, p.output = {grad_shape[2], grad_shape[3]};
    p.kernel = {kernel[0], kernel[1]}, p.stride = {stride[0], stride[1]};
    p.padding = {padding[0], padding[1]}, p.dilation = {dilation[0], dilation[1]};
    p.scale = reinterpret_cast<const float*>(scale);
    p.shift = reinterpret_cast<const float*>(shift);
    p.out = reinterpret_cast<float*>(out);
    return p;
}

void weight_grad(const std::string& type, uintptr_t x, Four x_shape, Four x_strides, uintptr_t grad,
                 Four grad_shape, Four grad_strides, int64_t filters, Two kernel, Two stride,
                 Two padding, Two dilation, uintptr_t scale, uintptr_t shift, uintptr_t out,
                 int threads) {
    if (type != "float32" && type != "bfloat16")
        throw std::invalid_argument("weight_grad: no kernel for " + type);
    WeightGrad p =
        weight_grad_problem(x, x_shape, x_strides, grad, grad_shape, grad_strides, filters, kernel,
                            stride, padding, dilation, scale, shift, out);
    p.type = type == "float32" ? Element::float32 : Element::bfloat16;
    py::gil_scoped_release release;
    weight_grad_cpu(p, threads);
}

const float* floats(uintptr_t pointer) { return reinterpret_cast<const float*>(pointer); }
float* floats_to_write(uintptr_t pointer) { return reinterpret_cast<float*>(pointer); }

void bn_relu(uintptr_t x, int64_t x_pixel, int64_t pixels, int64_t channels, uintptr_t scale,
             uintptr_t shift, uintptr_t out, int threads) {
    const NormInput input{floats(x), x_pixel, pixels, channels, floats(scale), floats(shift)};
    py::gil_scoped_release release;
    bn_relu_cpu(input, floats_to_write(out), threads);
}

void bn_relu_backward(uintptr_t x, int64_t x_pixel, int64_t pixels, int64_t channels,
                      uintptr_t scale, uintptr_t shift, uintptr_t grad, uintptr_t mean,
                      uintptr_t inverse_deviation, bool of_batch, uintptr_t grad_x,
                      uintptr_t grad_weight, uintptr_t grad_bias, int threads) {
    const NormInput input{floats(x), x_pixel, pixels, channels, floats(scale), floats(shift)};
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
CudaType cuda_type(const std::string& name) {
    static const std::map<std::string, CudaType> types = {{"float32", CudaType::float32},
                                                          {"bfloat16", CudaType::bfloat16},
                                                          {"float16", CudaType::float16}};
    return types.at(name);
}

void pack_filters_on_cuda(uintptr_t out, Four out_strides, const std::string& out_type,
                          uintptr_t learned, Four learned_strides, uintptr_t frozen,
                          Four frozen_strides, Four shape, int64_t num_learned, int slice_dim,
                          uintptr_t stream) {
    const FilterBank bank{reinterpret_cast<void*>(out), out_strides, shape};
    const FilterPart first{reinterpret_cast<const void*>(learned), learned_strides, 0, num_learned};
    const FilterPart rest{reinterpret_cast<const void*>(frozen), frozen_strides, num_learned,
                          shape[slice_dim]};
    pack_filters_cuda(bank, first, rest, slice_dim, cuda_type(out_type), stream);
}

// Of the GPU: its multiprocessors, and the bytes of shared memory that a block may have.
int weight_grad_splits_on_cuda(const std::string& type, Four x_shape, int64_t filters, Two kernel,
                               Two stride, Two padding, Two dilation, int multiprocessors,
                               int shared_bytes) {
    const WeightGrad p = weight_grad_problem(0, x_shape, {0, 1, 0, 0}, 0, {}, {}, filters, kernel,
                                             stride, padding, dilation, 0, 0, 0);
    return weight_grad_cuda_splits(p, cuda_type(type), {multiprocessors, shared_bytes});
}

void weight_grad_on_cuda(const std::string& type, uintptr_t x, Four x_shape, Four x_strides,
                         uintptr_t grad, Four grad_shape, Four grad_strides, int64_t filters,
                         Two kernel, Two stride, Two padding, Two dilation, uintptr_t scale,
                         uintptr_t shift, uintptr_t out, uintptr_t workspace, int multiprocessors,
                         int shared_bytes, uintptr_t stream) {
    const WeightGrad p =
        weight_grad_problem(x, x_shape, x_strides, grad, grad_shape, grad_strides, filters, kernel,
                            stride, padding, dilation, scale, shift, out);
    weight_grad_cuda(p, cuda_type(type), {multiprocessors, shared_bytes},
                     reinterpret_cast<float*>(workspace), stream);
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
