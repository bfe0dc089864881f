"""Optimizers that hold parameters which are about to be replaced."""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence

import torch
from torch import nn


def warn_of_stale_optimizers(layers: Sequence[nn.Module], caller: str) -> None:
    """Warns if an optimizer holds a parameter of ``layers``; it would keep training the old one."""
    # The heap is searched only if something besides the layers refers to a parameter.
    if max(map(_references, layers), default=0) <= _references(nn.Linear(1, 1, device="meta")):
        return
    parameters = {id(p) for layer in layers for p in layer.parameters(recurse=False)}
    stale = [
        type(optimizer).__name__
        for optimizer in gc.get_objects()
        # Not isinstance, which runs the code of proxies.
        if issubclass(type(optimizer), torch.optim.Optimizer)
        and any(id(p) in parameters for group in optimizer.param_groups for p in group["params"])
    ]
    if stale:
        warnings.warn(
            f"{caller} replaces parameters that an optimizer holds ({', '.join(stale)}); "
            "make the optimizer anew, from the model's parameters",
            stacklevel=3,
        )


def _references(layer: nn.Module) -> int:
    """The most references to a parameter of ``layer``, those of this function included."""
    counts = [sys.getrefcount(p) for p in vars(layer)["_parameters"].values() if p is not None]
    return max(counts, default=0)
