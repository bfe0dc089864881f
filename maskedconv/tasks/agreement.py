"""Whether outputs of a mixed batch are those of each task's rows alone, except for rounding."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from maskedconv.ops.devices import autocast_dtype
from maskedconv.tasks.rows import Group


def disagreement(
    found: Sequence[Tensor],
    expected: Sequence[Tensor],
    groups: Sequence[Group],
    used: Iterable[Any],
) -> str:
    """Says how the outputs of a group differ; empty if they do not.

    Outputs may differ by √ε of the largest one, with the ε of the least precise type in use.

    Args:
        found, expected: of each group.
        used: values of all kinds; only tensors count.
    """
    kinds = [one for one in (*used, *expected) if isinstance(one, Tensor)]
    allowed = math.sqrt(max(map(_epsilon, kinds)))
    for one, other, group in zip(found, expected, groups, strict=True):
        if one.shape != other.shape or one.dtype != other.dtype:
            return f"task {group.task!r} gives {_kind(one)} instead of {_kind(other)}"
        exact = not other.is_floating_point()
        scale = other[other.isfinite()].abs().amax() if other.isfinite().any() else 0.0
        limit = 0.0 if exact else allowed * float(scale)
        if not torch.isclose(one, other, rtol=0, atol=limit, equal_nan=True).all():
            return f"rows of task {group.task!r} give other values than without those of the others"
    return ""


def _epsilon(tensor: Tensor) -> float:
    """The relative precision with which operators compute on ``tensor``."""
    if not tensor.is_floating_point():
        return 0.0
    device = tensor.device.type
    kinds = [tensor.dtype]
    if (dtype := autocast_dtype(device)) is not None:
        kinds.append(dtype)
    # TF32 has as many digits as float16.
    if device == "cuda" and tensor.dtype == torch.float32 and _uses_tf32():
        kinds.append(torch.float16)
    return max(torch.finfo(kind).eps for kind in kinds)


def _uses_tf32() -> bool:
    return torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32


def _kind(tensor: Tensor) -> str:
    return f"{list(tensor.shape)} of {tensor.dtype}"
