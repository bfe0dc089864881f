"""Up to how many filters the compiled CPU kernel is faster than PyTorch's own operator.

From measurements of the layers of DenseNet-BC-100-12, WRN-28-4, WRN-28-10, VGG-19 and AlexNet on
two threads of a processor with AVX-512, float32, channels_last (``python -m bench.networks``). The
library computes whole blocks of 16 filters; the kernel as many as there are.
"""

from __future__ import annotations

from maskedconv.ops.weight_grad.problem import WeightGradProblem


def native_is_faster(problem: WeightGradProblem) -> bool:
    """Whether to prefer the compiled kernel to the reference for this problem on the CPU."""
    filters, channels, *kernel = problem.shape
    taps = kernel[0] * kernel[1]
    if channels < 16:
        # Lanes of 16 channels are mostly padding.
        return filters * taps <= 36
    if problem.geometry.stride != (1, 1):
        return filters <= 64
    if taps == 1:
        return filters <= 12 or 16 < filters <= 40
    # Small maps: the sums of all taps are loaded and stored for each of them.
    pixels = problem.input.size(2) * problem.input.size(3)
    return filters <= (10 if pixels <= 4 else 28 if pixels <= 16 else 48)


def all_with_input_is_faster(problem: WeightGradProblem) -> bool:
    """Whether the library's one call for the gradients of the input and of every filter costs less
    than two calls, one of them for these filters alone: narrow 1×1 layers on the CPU.
    """
    filters, channels, rows, columns = problem.shape
    if rows * columns > 1 or channels > 48 or 3 * filters < problem.grad_output.size(1):
        return False
    on_cpu = problem.input.device.type == "cpu"
    return on_cpu and problem.slice_dim == 0 and problem.geometry.groups == 1
