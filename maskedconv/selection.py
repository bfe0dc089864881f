"""Learning only a named part of a network, the rest frozen (Rosenfeld & Tsotsos 2018, table 1)."""

from __future__ import annotations

from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Model = TypeVar("Model", bound=nn.Module)

PARTS = ("all", "bn", "conv1", "block1", "block2", "block3", "fc")


def select_learned_(model: Model, part: str, *, bn_learned: bool = True) -> Model:
    """Makes ``part`` and every BatchNorm's γ and β learned, in place; freezes the rest.

    Sets ``requires_grad``, so it comes before the optimiser is made. Filters that are frozen by
    their layer stay so.

    Args:
        model: a network with attributes named like the parts that it has (``conv1``, ``block1``,
            ``fc``, ...).
        part: "all"; "bn" for nothing besides BatchNorm; or the name of a part.
        bn_learned: False freezes every BatchNorm's γ and β instead, those within ``part`` too.

    Returns:
        ``model``.

    Raises:
        ValueError: ``part`` is not one of the names, or ``model`` has no such part; ``part`` is
            "bn" without ``bn_learned``.
    """
    parts = {
        name: module
        for name in PARTS[2:]
        if isinstance(module := getattr(model, name, None), nn.Module)
    }
    present = ["all", "bn", *parts]
    if part not in present:
        raise ValueError(
            f"part is {part!r}; expected one of {', '.join(present)} for {type(model).__name__}"
        )
    if part == "bn" and not bn_learned:
        raise ValueError("part is 'bn' and bn_learned is False, which leaves nothing to learn")
    model.requires_grad_(part == "all")
    if part in parts:
        parts[part].requires_grad_(True)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(bn_learned)
    return model
