"""How the outputs of weight_grad are compared: see :mod:`maskedconv.ops.agreement`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from maskedconv.ops.agreement import TOLERANCE, Output, Outputs
from maskedconv.ops.weight_grad.problem import WeightGradProblem
from maskedconv.ops.weight_grad.reference import without_prologue


def compare(problem: WeightGradProblem, results: Outputs, expected: Outputs) -> Iterator[Output]:
    """Each element, also relative to the typical one of its filter and channel.

    This is ``|grad| |x| / sqrt(P)``, with norms of the filter's gradient and of the channel over P
    pixels. The roundings of the P products, in TF32 or in half precision, are as random as their
    signs.
    """
    if problem.scale is not None:
        problem = without_prologue(problem)
    grad, channels = _norms(problem.grad_output), _norms(problem.input)
    if problem.geometry.groups > 1:
        grad, channels = grad.max().view(1), channels.max().view(1)
    pixels = problem.grad_output.numel() // problem.grad_output.size(1)
    typical = torch.outer(grad[: problem.shape[0]], channels) / pixels**0.5
    yield Output("", results[0], expected[0], TOLERANCE * typical.view(*typical.shape, 1, 1))


def _norms(images: Tensor) -> Tensor:
    """The norm of each channel of ``[N, C, H, W]``."""
    return torch.linalg.vector_norm(images, 2, (0, 2, 3), dtype=torch.float32)
