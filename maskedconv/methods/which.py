"""Which slices of a weight are learned: by place, by norm, at random, by scores, or as given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from maskedconv import slices
from maskedconv.checks import check_choice
from maskedconv.nn.random_weights import seeded

PLACES = ("first", "last", "largest", "smallest", "random")
Place = Literal["first", "last", "largest", "smallest", "random"]
Which = Place | Sequence[int] | Sequence[float] | Tensor
"""A name, the learned indices (ints), or a score of each slice (floats)."""

Chosen = str | tuple[int, ...] | tuple[float, ...]
"""The result of :func:`check_which`."""


def check_which(which: object) -> Chosen:
    """``which`` in a form that can be compared.

    Raises:
        TypeError: it is neither a string, nor a list or tensor ``[n]`` of ints or of floats.
        ValueError: there is no such name, or a score is NaN or infinite.
    """
    if isinstance(which, str):
        check_choice("which", which, PLACES)
        return which
    values: Any = which
    if isinstance(which, Tensor) and which.dim() == 1:
        values = which.tolist()
    listed = isinstance(values, list | tuple)
    kinds = {type(one) for one in values} if listed else {type(which)}
    if not (kinds <= {int} or kinds <= {float}) or not listed:
        raise TypeError(
            f"which is {which!r}; expected one of {', '.join(PLACES)}, a list or tensor of ints "
            "(indices), or one of floats (scores)"
        )
    if any(not math.isfinite(one) for one in values):
        raise ValueError("which has scores that are NaN or infinite; expected finite ones")
    return tuple(values)


def indices_of(
    which: Chosen, weight: Tensor, slice_dim: int, learned: float | int, seed: int | None
) -> Sequence[int] | None:
    """The indices of ``slice_dim`` that are learned; None for the first ones.

    Ties between norms or scores go to the first slices.

    Args:
        which: a result of :func:`check_which`.
        weight: ``[O, I / groups, kH, kW]``, for norms.
        learned: as for ``MaskedConv2d``.
        seed: for "random"; None for torch's own generator.

    Raises:
        ValueError: there is not one score for each slice; or the norms are asked for, and the
            weight has no memory, or a value that is NaN or infinite.
    """
    if which == "first":
        return None
    size = weight.size(slice_dim)
    count = slices.num_learned(learned, size, slice_dim)
    if which == "last":
        return range(size - count, size)
    if which == "random":
        return _numbers(torch.randperm(size, generator=seeded(seed), device="cpu")[:count])
    if isinstance(which, tuple) and all(isinstance(index, int) for index in which):
        return [int(index) for index in which]
    scores = _scores(which, weight.detach(), slice_dim)
    return _numbers(scores.argsort(descending=True, stable=True)[:count])


def _scores(which: Chosen, weight: Tensor, slice_dim: int) -> Tensor:
    """A score of each slice, ``[size]``; the highest are learned."""
    if isinstance(which, tuple):
        if len(which) != weight.size(slice_dim):
            raise ValueError(
                f"which has {len(which)} scores; expected one for each of the "
                f"{weight.size(slice_dim)} indices of dimension {slice_dim}"
            )
        return torch.tensor(which, dtype=torch.float64, device="cpu")
    if weight.is_meta:
        raise ValueError(f"which is {which!r}, but the weight is on the meta device")
    norms = weight.to("cpu", torch.float64).movedim(slice_dim, 0).flatten(1).norm(dim=1)
    if not norms.isfinite().all():
        raise ValueError(f"which is {which!r}, but the weight has NaN or infinite values")
    return -norms if which == "smallest" else norms


def _numbers(indices: Tensor) -> list[int]:
    return [int(index) for index in indices.tolist()]
