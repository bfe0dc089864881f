"""Modules that are another one with something around it."""

from __future__ import annotations

from torch import nn

# By name, as importing what torch.compile makes takes seconds.
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
}
"""Class name -> the name under which such a module holds the other one."""


def unwrapped(model: nn.Module) -> nn.Module:
    """The network that ``model`` is or wraps."""
    while (inner := WRAPPERS.get(type(model).__name__)) and inner in model._modules:
        model = model.get_submodule(inner)
    return model
