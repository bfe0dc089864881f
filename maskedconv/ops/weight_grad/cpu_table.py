"""Where on the CPU the compiled kernel is faster than PyTorch's own operators, and where it is not.

From ``python -m bench.ways``, which measures every layer of the paper's networks each way: two
threads of a processor with AVX-512, float32, channels_last.
"""

from __future__ import annotations

import torch

from maskedconv.ops.weight_grad.problem import WeightGradProblem

# Floats of gradient: the sums of more leave the caches between the kernel's blocks of pixels.
_MOST_SUMS = 2_000_000


def native_is_faster(problem: WeightGradProblem) -> bool:
    """Whether to prefer the compiled kernel to the reference for this problem on the CPU."""
    return problem.shape.numel() <= _MOST_SUMS


def whole_is_faster(learned_shape: torch.Size, out_channels: int) -> bool:
    """Whether PyTorch's gradients of the input and of all filters at once cost less on the CPU than
    the input's and that of the learned filters apart: narrow layers of which much is learned.
    """
    filters, channels, rows, columns = learned_shape
    # The kernel pads channels to 16, the library filters.
    padded = rows * columns == 1 and 16 < channels < 32
    return padded and 3 * filters >= 2 * out_channels - 2
