"""BatchNorm in evaluation for the rows of several tasks in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedconv.tasks.places import TaskEntry, Value
from maskedconv.tasks.rows import Group

_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def is_joint_norm(module: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether ``module`` is a BatchNorm that :func:`normalise` computes."""
    kind = getattr(type(module), "plain_type", type(module))
    return kind in _KINDS and not module.training and bool(module.track_running_stats)


def normalise(
    norm: _BatchNorm,
    input: Tensor,
    places: Sequence[TaskEntry],
    values: Sequence[Sequence[Value]],
    groups: Sequence[Group],
) -> Tensor:
    """``input [N, C, ...]`` normalised with the values of each row's task.

    Args:
        places: the entries of ``norm`` that tasks have.
        values: theirs, for each group.
    """

    def rows(key: str) -> Tensor | None:
        """Its values for each row, ``[N, C]``."""
        index = next((i for i, place in enumerate(places) if place.key == key), None)
        parts = [
            value.expand(group.size, -1)
            for group, own in zip(groups, values, strict=True)
            if isinstance(value := getattr(norm, key) if index is None else own[index], Tensor)
        ]
        return torch.cat(parts).to(kind) if parts else None

    # As BatchNorm itself, which computes in float32 for smaller types.
    kind = torch.promote_types(input.dtype, torch.float32)
    mean, var, weight, bias = map(rows, ("running_mean", "running_var", "weight", "bias"))
    assert mean is not None
    assert var is not None
    scale = (var + norm.eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    shape = (*shift.shape, *[1] * (input.dim() - 2))
    return torch.addcmul(shift.view(shape), input, scale.view(shape)).to(input.dtype)
