"""Draws what a model learns anew, from one seed; frozen values stay."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from maskedconv.nn.frozen_statistics import FrozenStatistics
from maskedconv.nn.partly_learned import PartlyLearned


@torch.no_grad()
def draw_learned_(model: nn.Module, seed: int) -> None:
    """Draws all values that require a gradient anew; torch's own generator stays as it is.

    Modules that have ``reset_parameters`` are drawn anew too; frozen statistics stay.

    Raises:
        ValueError: a layer cannot be drawn anew, as of ``random_positions``.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for name, module in model.named_modules():
            own = list(module.parameters(recurse=False))
            if isinstance(module, PartlyLearned):
                drawn = _drawn(name, module, int(torch.randint(2**31, ())))
                for parameter, new in zip(own, drawn.parameters(recurse=False), strict=True):
                    parameter.copy_(new)
            elif hasattr(module, "reset_parameters") and all(p.requires_grad for p in own):
                _reset(module)


def _reset(module: nn.Module) -> None:
    statistics = module.buffers(recurse=False) if isinstance(module, FrozenStatistics) else ()
    kept = [(buffer, buffer.clone()) for buffer in statistics]
    cast(Any, module).reset_parameters()
    for buffer, values in kept:
        buffer.copy_(values)


def _drawn(name: str, layer: PartlyLearned, seed: int) -> PartlyLearned:
    try:
        return layer.drawn_from(seed)
    except ValueError as error:
        raise ValueError(
            f"layer {name} ({layer.method}) cannot be drawn anew from a seed ({error}); expected "
            "seed=None, which keeps the values of the model"
        ) from None
