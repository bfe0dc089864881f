"""Moves hooks, attributes and gradients from a layer to its replacement."""

from __future__ import annotations

from torch import Tensor, nn

from maskedconv.convertible import MOVED_HOOKS, further_attributes


def carry_module(old: nn.Conv2d, new: nn.Conv2d) -> None:
    """Moves forward and backward hooks and further attributes from ``old`` to ``new``.

    The dictionaries of hooks are shared, so that handles made earlier still remove theirs.
    """
    for name in MOVED_HOOKS:
        vars(new)[name] = vars(old)[name]
    vars(new).update(further_attributes(old, type(old)))


def carry_parameter(old: Tensor | None, new: Tensor | None, dim: int) -> None:
    """Gives ``new`` the attributes and the gradient of ``old``.

    One of the two is the full tensor, the other its first indices along ``dim``. The gradient of a
    part does not determine the gradient of the full tensor, so the latter becomes None.
    """
    if not isinstance(old, nn.Parameter) or not isinstance(new, nn.Parameter):
        return
    vars(new).update(vars(old))
    if old.grad is not None and new.size(dim) <= old.size(dim):
        new.grad = old.grad.narrow(dim, 0, new.size(dim)).clone()
