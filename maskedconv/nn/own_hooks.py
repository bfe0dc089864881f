"""Forward hooks of this package on a model, which a plain model does not need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import nn


class OwnHooks(ABC):
    """Base class of objects whose methods are forward hooks."""

    @property
    @abstractmethod
    def in_use(self) -> bool:
        """False in a copy of a model whose owner was not copied."""


def remove_unused_hooks(model: nn.Module) -> None:
    """Removes the hooks of objects that are not in use."""
    remove_hooks(model, _is_unused)


def remove_hooks(model: nn.Module, chosen: Callable[[object], bool]) -> None:
    """Removes the forward hooks of all modules for which ``chosen`` is true."""
    for module in model.modules():
        for registry in (module._forward_pre_hooks, module._forward_hooks):
            for key in [key for key, hook in registry.items() if chosen(hook)]:
                del registry[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_with_kwargs.pop(key, None)
                module._forward_hooks_always_called.pop(key, None)


def _is_unused(hook: object) -> bool:
    owner = getattr(hook, "__self__", None)
    return isinstance(owner, OwnHooks) and not owner.in_use
