"""What a layer takes over from the one that it replaces, besides filters and geometry."""

from __future__ import annotations

from torch import Tensor, nn

from maskedconv.nn.convertible import MOVED_HOOKS, further_attributes


def carry_module(old: nn.Conv2d, new: nn.Conv2d) -> None:
    """Moves forward and backward hooks and further attributes from ``old`` to ``new``.

    The dictionaries of hooks are shared, so that handles made earlier still remove theirs.
    """
    for name in MOVED_HOOKS:
        vars(new)[name] = vars(old)[name]
    vars(new).update(further_attributes(old, type(old)))


def carry_parameter(old: Tensor | None, new: Tensor | None, dim: int) -> None:
    """Gives ``new`` the attributes and the gradient of ``old``.

    One of them is the whole, the other its first indices of ``dim``. A part's gradient says nothing
    of the whole's, which is then None.
    """
    if not isinstance(old, nn.Parameter) or not isinstance(new, nn.Parameter):
        return
    vars(new).update(vars(old))
    if old.grad is not None and new.size(dim) <= old.size(dim):
        new.grad = old.grad.narrow(dim, 0, new.size(dim)).clone()
