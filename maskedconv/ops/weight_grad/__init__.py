"""weight_grad: the gradient of the learned slice of a filter bank, and of nothing else.

``dW[o, i, r, c] = sum over n, h, w of grad_output[n, o, h, w] * x[n, i, h s + r d - p, ...]`` for
the learned indices of one dimension only. Each slice dimension is a smaller convolution's weight
gradient: of fewer output channels (0), of fewer input channels (1), of a shorter kernel (2, 3).
"""

from __future__ import annotations

import torch
from torch import Tensor

from maskedconv.ops.choice import choose
from maskedconv.ops.geometry import filter_runs, first_channels, memory_format_of
from maskedconv.ops.weight_grad import native, reference
from maskedconv.ops.weight_grad.problem import WeightGradProblem

__all__ = ["BACKENDS", "WeightGradProblem", "keep_for_weight_grad", "weight_grad"]

BACKENDS = {"reference": reference, "native": native}


def keep_for_weight_grad(
    input: Tensor, learned_shape: torch.Size, slice_dim: int, out_channels: int, groups: int
) -> Tensor:
    """What of ``input [N, C, H, W]`` the gradient of the learned slice needs, in memory of its own.

    The whole input is returned as it is; a part of its channels is copied, so that the rest can be
    freed.
    """
    if slice_dim == 1:
        part = first_channels(input, learned_shape[1], groups)
    elif slice_dim == 0:
        runs = filter_runs(learned_shape[0], out_channels, input.size(1), groups)
        part = input.narrow(1, 0, runs[-1].end_channel if runs else 0)
    else:
        return input
    if part.size(1) == input.size(1):
        return input
    return part.contiguous(memory_format=memory_format_of(input))


def preference(problem: WeightGradProblem) -> tuple[str, ...]:
    """Backends from the fastest to the one that always runs, for this problem."""
    if torch.compiler.is_compiling():
        return ("reference",)
    return ("native", "reference")


def weight_grad(problem: WeightGradProblem, dtype: torch.dtype) -> Tensor:
    """Gradient of the learned slice, of shape ``problem.shape`` and type ``dtype``.

    Raises:
        ValueError, RuntimeError: MASKEDCONV_BACKEND names no backend, or one that cannot run here.
    """
    backend = choose(BACKENDS, problem, preference(problem))
    return BACKENDS[backend].run(problem).to(dtype)
