"""Moves hooks, attributes and gradients from a layer to its replacement."""

from __future__ import annotations

from torch import Tensor, nn

from maskedconv.nn.convertible import MOVED_HOOKS, further_attributes
from maskedconv.nn.origin import set_origin
from maskedconv.nn.partly_learned import LearnedPart, PartlyLearned
from maskedconv.nn.remembered import forget_frozen


def carry_to_parts(plain: nn.Module, layer: PartlyLearned) -> None:
    """Moves everything from a plain layer to the one that replaces it."""
    _carry_module(plain, layer)
    for part in layer.learned_parts():
        _carry_parameter(getattr(plain, part.plain), part.tensor, part)


def carry_to_plain(layer: PartlyLearned, plain: nn.Module) -> None:
    """Moves everything from a layer to the plain one that replaces it."""
    _carry_module(layer, plain)
    # They are about frozen values, and the plain layer has none.
    set_origin(plain, None)
    forget_frozen(plain)
    for part in layer.learned_parts():
        _carry_parameter(part.tensor, getattr(plain, part.plain), part)


def _carry_module(old: nn.Module, new: nn.Module) -> None:
    """Moves forward and backward hooks and further attributes from ``old`` to ``new``.

    The dictionaries of hooks are shared, so that handles made earlier still remove theirs.
    """
    for name in MOVED_HOOKS:
        vars(new)[name] = vars(old)[name]
    vars(new).update(further_attributes(old, type(old)))


def _carry_parameter(old: Tensor | None, new: Tensor | None, part: LearnedPart) -> None:
    """Gives ``new`` the attributes and the gradient of ``old``.

    One of the two is the full tensor, the other ``part`` of it. The gradient of a part does not
    determine the gradient of the full tensor, so the latter becomes None.
    """
    dim = part.dim
    if not isinstance(old, nn.Parameter) or not isinstance(new, nn.Parameter):
        return
    vars(new).update(vars(old))
    if old.grad is not None and new.size(dim) <= old.size(dim):
        if part.indices is None:
            new.grad = old.grad.narrow(dim, 0, new.size(dim)).clone()
        else:
            new.grad = old.grad.index_select(dim, part.indices)
