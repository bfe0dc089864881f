"""Learning only named parts of a network, the rest frozen (Rosenfeld & Tsotsos 2018, table 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Model = TypeVar("Model", bound=nn.Module)

PARTS = ("all", "bn", "conv1", "block1", "block2", "block3", "shortcuts", "fc")
_SHORTCUT = "shortcut"


def select_learned_(model: Model, part: str | Sequence[str], *, bn_learned: bool = True) -> Model:
    """Makes ``part`` and every BatchNorm's γ and β learned, in place; freezes the rest.

    Sets ``requires_grad``, so it comes before the optimiser is made. Filters that are frozen by
    their layer stay so.

    Args:
        model: a network with attributes named like the parts that it has (``conv1``, ``block1``,
            ``fc``, ...).
        part: "all"; "bn" for nothing besides BatchNorm; "shortcuts" for every module whose name
            starts with ``shortcut``; the name of another part; or several of these, all of which
            are learned.
        bn_learned: False freezes every BatchNorm's γ and β instead, those within ``part`` too.
            With "fc", the output layer alone is learned.

    Returns:
        ``model``.

    Raises:
        ValueError: ``part`` is empty or not one of the names, or ``model`` has no such part;
            ``part`` is "bn" without ``bn_learned``.
    """
    parts, chosen = _parts(model), [part] if isinstance(part, str) else list(part)
    present = ["all", "bn", *(name for name in PARTS if name in parts)]
    if unknown := [name for name in chosen if name not in present]:
        raise ValueError(
            f"part is {unknown[0]!r}; expected one of {', '.join(present)} for "
            f"{type(model).__name__}"
        )
    if not chosen:
        raise ValueError(f"part is {part!r}; expected at least one of {', '.join(present)}")
    if "bn" in chosen and not bn_learned:
        nothing = ", which leaves nothing to learn" if set(chosen) == {"bn"} else ""
        raise ValueError(f"part is {part!r} and bn_learned is False{nothing}")
    model.requires_grad_("all" in chosen)
    for name in chosen:
        for module in parts.get(name, ()):
            module.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(bn_learned)
    return model


def _parts(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules of each part that ``model`` has, except "all" and "bn"."""
    found = {name: getattr(model, name, None) for name in PARTS}
    parts = {name: [one] for name, one in found.items() if isinstance(one, nn.Module)}
    shortcuts = [
        module
        for name, module in model.named_modules()
        if name.rpartition(".")[2].startswith(_SHORTCUT)
    ]
    return {**parts, "shortcuts": shortcuts} if shortcuts else parts
