"""The state of an optimizer in a sharded checkpoint, beside the values of its model."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

# No module's name is empty, so that no value of a model begins so.
PREFIX = ".optimizer."


def optimizer_state(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Any]:
    """State and settings by the names of the parameters; empty without an optimizer.

    An optimizer that has made no step gets the state that it begins with.
    """
    if optimizer is None:
        return {}
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    state = get_optimizer_state_dict(model, optimizer, options=_flat())
    return {f"{PREFIX}{key}": value for key, value in state.items()}


def load_optimizer_state(
    model: nn.Module, optimizer: Optimizer | None, state: dict[str, Any]
) -> None:
    """Sets the result of :func:`optimizer_state`."""
    if optimizer is None:
        return
    from torch.distributed.checkpoint.state_dict import set_optimizer_state_dict

    own = {key.removeprefix(PREFIX): value for key, value in state.items()}
    set_optimizer_state_dict(model, optimizer, own, options=_flat())


def _flat() -> Any:
    from torch.distributed.checkpoint.state_dict import StateDictOptions

    return StateDictOptions(flatten_optimizer_state_dict=True)
