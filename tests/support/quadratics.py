"""A problem for the tests of optimizers."""

from __future__ import annotations

import torch
from torch import Tensor


def noisy_quadratic(point: Tensor, step: int) -> Tensor:
    """The gradient ``[4]`` of a quadratic at ``point``, with the noise of a step."""
    curvatures = torch.tensor([1.0, 3.0, 10.0, 30.0])
    noise = torch.randn(4, generator=torch.Generator().manual_seed(step))
    return curvatures * point.detach() + 0.1 * noise
