"""Optimizers that hold parameters which are about to be replaced or frozen."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence

import torch
from torch import nn

from maskedconv.conversion.outside import ParameterRef


def warn_of_stale_optimizers(
    layers: Sequence[nn.Module], caller: str, frozen: Sequence[ParameterRef] = ()
) -> None:
    """Warns if an optimizer holds a parameter that is about to be replaced, or frozen.

    Args:
        layers: whose parameters are replaced; the optimizer would keep training the old ones.
        frozen: parameters that become frozen; the optimizer would hold them for nothing.
    """
    owners = [*layers, *(place.owner for place in frozen)]
    # The heap is searched only if something besides the layers refers to a parameter.
    if max(map(_references, owners), default=0) <= _references(nn.Linear(1, 1, device="meta")):
        return
    replaced = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    optimizers = _optimizers()
    _warn(_holders(optimizers, replaced), f"{caller} replaces parameters")
    _warn(_holders(optimizers, {id(p.parameter) for p in frozen}), f"{caller} freezes parameters")


def _optimizers() -> list[torch.optim.Optimizer]:
    # Not isinstance, which runs the code of proxies.
    return [one for one in gc.get_objects() if issubclass(type(one), torch.optim.Optimizer)]


def _holders(optimizers: list[torch.optim.Optimizer], parameters: set[int]) -> list[str]:
    """The types of optimizers that hold one of the ``parameters``, which are given by their id."""
    return [
        type(optimizer).__name__
        for optimizer in optimizers
        if any(id(p) in parameters for group in optimizer.param_groups for p in group["params"])
    ]


def _warn(holders: list[str], does: str) -> None:
    if holders:
        warnings.warn(
            f"{does} that an optimizer holds ({', '.join(holders)}); "
            "make the optimizer anew, from the model's parameters",
            stacklevel=4,
        )


def _references(layer: nn.Module) -> int:
    """The most references to a parameter of ``layer``, those of this function included."""
    counts = [sys.getrefcount(p) for p in vars(layer)["_parameters"].values() if p is not None]
    return max(counts, default=0)
