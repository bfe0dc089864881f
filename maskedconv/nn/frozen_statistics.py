"""Norms that keep their running statistics, and normalise with them in training too.

A small batch, or another data set than the one of the first training, gives statistics that differ
from those that the frozen filters were made for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self, cast

from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook

_FROZEN_TYPES: dict[type[nn.Module], type[nn.Module]] = {}


class FrozenStatistics(nn.Module):
    """A norm that stays in evaluation mode; :func:`freeze_statistics_` makes it of another one.

    Attributes:
        plain_type: the class of the norm otherwise.
    """

    plain_type: ClassVar[type[nn.Module]]

    def train(self, mode: bool = True) -> Self:
        """Leaves the norm in evaluation mode, whatever ``mode`` is."""
        return super().train(False)

    def reset_running_stats(self) -> None:
        """Leaves the statistics as they are; ``torch.optim.swa_utils.update_bn`` calls it."""

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class has no name in a module under which pickle would find it again.
        _, _, *state = cast(tuple[Any, ...], super().__reduce_ex__(max(int(protocol), 2)))
        return (_empty, (self.plain_type,), *state)


def freeze_statistics_(norm: nn.Module) -> None:
    """Keeps the running statistics of ``norm``, in place; ``model.train()`` does not undo it.

    Parameters, buffers and hooks stay as they are. The class becomes a subclass of it.
    """
    if not isinstance(norm, FrozenStatistics):
        norm.__class__ = _frozen_type(type(norm))
    norm.train()


def unfreeze_statistics_(norm: FrozenStatistics) -> None:
    """Gives ``norm`` its own class again. It stays in evaluation mode until ``train()``."""
    cast(nn.Module, norm).__class__ = norm.plain_type


def _frozen_type(plain: type[nn.Module]) -> type[nn.Module]:
    """The one subclass of ``plain`` with frozen statistics."""
    if not _FROZEN_TYPES:
        # Here, as PyTorch calls the hook for every module of the process. Its annotation omits
        # that a hook may return a module to take instead.
        register_module_module_registration_hook(cast(Callable[..., None], _on_registration))
    if plain not in _FROZEN_TYPES:
        # torch.fx treats modules of torch.nn as operators, and traces the inside of others.
        attributes = {"plain_type": plain, "__module__": plain.__module__}
        name = f"FrozenStatistics{plain.__name__}"
        _FROZEN_TYPES[plain] = type(name, (FrozenStatistics, plain), attributes)
    return _FROZEN_TYPES[plain]


def _empty(plain: type[nn.Module]) -> nn.Module:
    """A norm without attributes, which unpickling sets."""
    kind = _frozen_type(plain)
    return cast(Callable[[type[nn.Module]], nn.Module], kind.__new__)(kind)


def _on_registration(owner: nn.Module, name: str, module: nn.Module | None) -> nn.Module | None:
    """PyTorch calls this for every submodule that any module gets.

    A norm stays where ``convert_sync_batchnorm`` puts one that would follow the batch in its place.
    All processes have the same frozen statistics, so there is nothing to synchronize.
    """
    if not isinstance(module, nn.SyncBatchNorm):
        return None
    before = owner._modules.get(name)
    if not isinstance(before, FrozenStatistics):
        return None
    return before if module.running_mean is before.running_mean else None
