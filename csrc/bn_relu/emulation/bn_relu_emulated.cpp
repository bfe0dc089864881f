// bn_relu's CUDA kernels on the CPU, as a C library: built by the tests, never installed.
#include "bn_relu/cuda/bn_relu.cu"
#include "bn_relu/cuda/statistics.cu"
