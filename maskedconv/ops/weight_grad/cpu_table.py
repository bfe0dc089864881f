"""Up to how many filters the compiled CPU kernel is faster than PyTorch's own operator.

From measurements of the layers of DenseNet-BC-100-12, WRN-28-4, WRN-28-10, VGG-19 and AlexNet on
two threads of a processor with AVX-512, float32, channels_last; ``python -m bench.networks`` shows
what the choices come to. The library computes whole blocks of 16 filters; the kernel as many as
there are.
"""

from __future__ import annotations

import torch

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
        return filters <= (64 if channels < 32 else 12) or 16 < filters <= 40
    # Small maps: the sums of all taps are loaded and stored for each of them.
    pixels = problem.input.size(2) * problem.input.size(3)
    return filters <= (10 if pixels <= 4 else 28 if pixels <= 16 else 48)


def whole_is_faster(learned_shape: torch.Size, out_channels: int) -> bool:
    """Whether PyTorch's gradients of the input and of all filters at once cost less on the CPU than
    the input's and that of the learned filters apart: narrow layers of which much is learned.
    """
    filters, channels, rows, columns = learned_shape
    taps = rows * columns
    if channels < 16:
        blocks = -(-filters // 16) * 16
        return filters * taps > 36 and 2 * blocks > out_channels
    if taps > 1:
        return False
    narrow = channels <= 64 and out_channels <= 64
    return 3 * filters >= (out_channels if narrow else 2 * out_channels - 2)
