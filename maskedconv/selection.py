"""Learning only named parts of a network, the rest frozen (Rosenfeld & Tsotsos 2018, table 1)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedconv.conversion.naming import matches, shortened

Model = TypeVar("Model", bound=nn.Module)

_SHORTCUTS = "shortcuts"
PARTS = ("conv1", "block1", "block2", "block3", _SHORTCUTS, "fc")


def select_learned_(model: Model, part: str | Sequence[str], *, bn_learned: bool = True) -> Model:
    """Makes ``part`` and every BatchNorm's γ and β learned, in place; freezes the rest.

    Sets ``requires_grad``, so it comes before the optimizer is made. Frozen parameters lose their
    gradients. Filters that are frozen by their layer stay so.

    Args:
        model: any network. The paper's have attributes named like their parts (``conv1``,
            ``block1``, ``fc``, ...).
        part: "all"; "bn" for nothing besides BatchNorm; "shortcuts" for every module whose name
            starts with ``shortcut``; the name of another part; a shell pattern of the names of
            modules and parameters (``"layer4.*"``, ``"*.bias"``), where a module is learned with
            all that is inside it; or several of these, all of which are learned.
        bn_learned: False freezes every BatchNorm's γ and β instead, those within ``part`` too.
            With "fc", the output layer alone is learned.

    Returns:
        ``model``.

    Raises:
        ValueError: ``part`` is empty, or neither one of the names nor a pattern that matches a
            name in ``model``; ``part`` is "bn" without ``bn_learned``,
            or the model has no BatchNorm. Nothing is changed then.
    """
    chosen = [part] if isinstance(part, str) else list(part)
    found = {name: _parameters(model, name) for name in chosen}
    _check(model, part, chosen, found, bn_learned)
    model.requires_grad_("all" in chosen)
    for parameters in found.values():
        for parameter in parameters:
            parameter.requires_grad_(True)
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.requires_grad_(bn_learned)
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.grad = None  # An optimizer moves what has a gradient, be it an old one.
    return model


def _check(
    model: nn.Module,
    part: str | Sequence[str],
    chosen: Sequence[str],
    found: Mapping[str, Sequence[nn.Parameter]],
    bn_learned: bool,
) -> None:
    """ValueError unless ``chosen`` has names, each with parameters in ``found`` or "bn"."""
    parts = [name for name in PARTS if hasattr(model, name) or name == _SHORTCUTS]
    parts = [name for name in parts if _parameters(model, name)]
    # Names of any other network's children, where it has no part of the paper's.
    children = parts or [shortened(name for name, _ in model.named_children())]
    present = ", ".join(["all", "bn", *children])
    if unknown := [name for name in chosen if name != "bn" and not found[name]]:
        raise ValueError(
            f"part is {unknown[0]!r}; expected one of {present} for {type(model).__name__}, or a "
            "pattern of names of its modules or parameters"
        )
    if not chosen:
        raise ValueError(f"part is {part!r}; expected at least one of {present}")
    if "bn" in chosen and not any(isinstance(one, _BatchNorm) for one in model.modules()):
        raise ValueError(
            f"part is {part!r}, but {type(model).__name__} has no BatchNorm; name its norms by a "
            "pattern, such as '*norm*'"
        )
    if "bn" in chosen and not bn_learned:
        nothing = ", which leaves nothing to learn" if set(chosen) == {"bn"} else ""
        raise ValueError(f"part is {part!r} and bn_learned is False{nothing}")


def _parameters(model: nn.Module, part: str) -> list[nn.Parameter]:
    """The parameters of a part, or under names that match a pattern; none for "bn"."""
    if part in ("all", "bn"):
        return list(model.parameters()) if part == "all" else []
    named = {name: [one] for name, one in model.named_parameters(remove_duplicate=False)}
    modules = model.named_modules(remove_duplicate=False)
    named |= {name: list(module.parameters()) for name, module in modules if name}
    return [
        parameter
        for name, parameters in named.items()
        if _belongs(name, part)
        for parameter in parameters
    ]


def _belongs(name: str, part: str) -> bool:
    if part == _SHORTCUTS:
        return name.rpartition(".")[2].startswith("shortcut")
    return matches(name, [part])
