"""Forward hooks of this package on a model, which a plain model does not need."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import nn


class OwnHooks(ABC):
    """Base class of objects whose methods are forward hooks of a model that another one owns."""

    @property
    @abstractmethod
    def owner(self) -> nn.Module | None:
        """It exchanges the values of the model; None in a copy of the model alone."""


def owners(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Modules that exchange values of ``model`` or of a part of it, with the part's name."""
    for name, module in model.named_modules():
        for hook in module._forward_hooks.values():
            own = getattr(hook, "__self__", None)
            if isinstance(own, OwnHooks) and own.owner is not None:
                yield name, own.owner


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
    own = getattr(hook, "__self__", None)
    return isinstance(own, OwnHooks) and own.owner is None
