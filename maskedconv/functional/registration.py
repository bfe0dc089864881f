"""Parts of registered operators: plans as numbers, and lists of the gradients that are needed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import compress

import torch
from torch import Tensor

from maskedconv.functional.bn_relu_step import BNReLUPlan, StepPlan
from maskedconv.ops.geometry import ConvGeometry

# The numbers of a convolution: stride, padding, dilation, groups, slice_dim, zeros.
NUMBERS = 9


def numbers_of(plan: BNReLUPlan) -> list[int]:
    """``NUMBERS`` for each convolution."""
    numbers: list[int] = []
    for conv in plan.convs:
        stride, padding, dilation, groups = conv.geometry
        numbers += *stride, *padding, *dilation, groups, conv.slice_dim, conv.zeros
    return numbers


@lru_cache(maxsize=1024)
def plan_of(
    eps: float, uses_batch_stats: bool, numbers: tuple[int, ...], backend: str, dtype: torch.dtype
) -> BNReLUPlan:
    """The plan whose :func:`numbers_of` these are."""
    convs = []
    for first in range(0, len(numbers), NUMBERS):
        s1, s2, p1, p2, d1, d2, groups, slice_dim, zeros = numbers[first : first + NUMBERS]
        geometry = ConvGeometry((s1, s2), (p1, p2), (d1, d2), groups)
        convs.append(StepPlan(geometry, backend, dtype, slice_dim, zeros))
    return BNReLUPlan(eps, uses_batch_stats, tuple(convs))


def needed(grads: Sequence[Tensor | None], flags: Sequence[bool]) -> list[Tensor]:
    """The gradients whose flag is set."""
    found = list(compress(grads, flags))
    assert len(grads) == len(flags)
    assert all(grad is not None for grad in found)
    return [grad for grad in found if grad is not None]


def like(tensor: Tensor | None) -> Tensor | None:
    """Stands for the gradient of ``tensor``."""
    return None if tensor is None else torch.empty_like(tensor)


def as_promised(tensor: Tensor, promised: Tensor) -> Tensor:
    """``tensor`` with the strides that the fake implementation gives it."""
    if tensor.stride() == promised.stride():
        return tensor
    return promised.copy_(tensor)
