// Fills the places of the CPU's weight_grad where the tests build the module for its CUDA kernels.
#include <stdexcept>

#include "../weight_grad.h"

namespace maskedconv {

void weight_grad_cpu(const WeightGrad&, int) {
    throw std::runtime_error("weight_grad: built without the CPU's kernel");
}

const char* weight_grad_isa() { return "none"; }

} // namespace maskedconv
