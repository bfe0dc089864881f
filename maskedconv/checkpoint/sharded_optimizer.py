"""The state of an optimizer in a sharded checkpoint, beside the values of its model.

Read and set by the optimizer's own ``state_dict`` and ``load_state_dict``. PyTorch's functions for
this (``torch.distributed.checkpoint.state_dict``) let an optimizer without state make a step, which
changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from maskedconv.checkpoint.whole_model import own_names

# No module's name is empty, so that no value of a model begins so.
PREFIX = ".optimizer."
_STATE, _SETTINGS = f"{PREFIX}state.", f"{PREFIX}param_groups."


def settings_of(optimizer: Optimizer) -> list[str]:
    """The names of the settings of this kind of optimizer, without those of schedulers."""
    # PyTorch adds this one to every optimizer that has loaded a state dict.
    return sorted(optimizer.defaults.keys() - {"differentiable"})


def optimizer_values(model: nn.Module, optimizer: Optimizer | None) -> dict[str, Any]:
    """State and settings by the names of the parameters; empty without an optimizer.

    Raises:
        ValueError: a parameter is not one of ``model``, or state is of no parameter or is neither a
            tensor nor a number.
    """
    if optimizer is None:
        return {}
    names = list(_parameters(model, optimizer))
    packed = optimizer.state_dict()
    values = {}
    for index, state in packed["state"].items():
        _check_storable(optimizer, index, state)
        values.update({f"{_STATE}{names[index]}.{key}": state[key] for key in state})
    for group in packed["param_groups"]:
        for index in group.pop("params"):
            values.update({f"{_SETTINGS}{names[index]}.{key}": group[key] for key in group})
    return values


def expected_values(
    model: nn.Module,
    optimizer: Optimizer | None,
    entries: Mapping[str, Any],
    settings: list[str] | None,
    folder: Path,
) -> dict[str, Any]:
    """Memory for all that ``folder`` holds of an optimizer; tensors are sharded as the parameters.

    Nothing without an optimizer.

    Args:
        entries: the metadata of the folder's values.
        settings: :func:`settings_of` the saved optimizer; None if the folder does not have them.

    Raises:
        ValueError: the folder holds no optimizer, or that of other parameters or of another kind.
    """
    if optimizer is None:
        return {}
    stored = {key: entry for key, entry in entries.items() if key.startswith(PREFIX)}
    if not stored:
        raise ValueError(f"{folder}: the folder holds no optimizer; expected one, as one is given")
    own = settings_of(optimizer)
    if settings is not None and settings != own:
        raise ValueError(
            f"{folder}: the settings of the optimizer are {', '.join(settings)} in the folder; "
            f"those of the {type(optimizer).__name__} are {', '.join(own)}"
        )
    parameters = _parameters(model, optimizer)
    for key in (f"{_SETTINGS}{name}.{setting}" for name in parameters for setting in own):
        if key not in stored:
            raise ValueError(f"{folder}: {key!r} is missing in the folder; the optimizer has it")
    return {
        key: _memory(entry, parameters[_split(key, parameters, folder)[1]])
        for key, entry in stored.items()
    }


def packed_values(
    model: nn.Module, optimizer: Optimizer | None, values: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """The state dict of ``optimizer``, with the ``values`` that belong to it; empty if None.

    Raises:
        ValueError: parameters of one group have different settings in the folder.
    """
    if optimizer is None:
        return {}
    parameters = _parameters(model, optimizer)
    parts: dict[str, dict[str, dict[str, Any]]] = {_STATE: {}, _SETTINGS: {}}
    for key, value in values.items():
        if not key.startswith(PREFIX):
            continue
        part, name, field = _split(key, parameters, folder)
        parts[part].setdefault(name, {})[field] = value
    names = list(parameters)
    packed = optimizer.state_dict()
    for group in packed["param_groups"]:
        members = [names[index] for index in group["params"]]
        read = _joint_settings(members, parts[_SETTINGS], folder)
        group.update({key: _placed(value, group.get(key)) for key, value in read.items()})
    state = parts[_STATE]
    return {**packed, "state": {i: state[name] for i, name in enumerate(names) if name in state}}


def _parameters(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """The parameters of ``optimizer`` by the network's own names, in the optimizer's order."""
    own = own_names(model)
    names: dict[int, str] = {}
    for key, value in model.state_dict(keep_vars=True).items():
        names.setdefault(id(value), own[key])
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for value in parameters:
        if id(value) not in names:
            raise ValueError(
                f"optimizer has a parameter {list(value.shape)} that is not one of the model; "
                "expected the optimizer of the model"
            )
    if len({id(value) for value in parameters}) < len(parameters):
        raise ValueError("optimizer has a parameter twice; expected each once")
    return {names[id(value)]: value for value in parameters}


def _check_storable(optimizer: Optimizer, index: Any, state: Mapping[str, Any]) -> None:
    kind = type(optimizer).__name__
    if not isinstance(index, int) and state != {}:
        raise ValueError(
            f"optimizer is a {kind}, whose state {index!r} is of no parameter; expected one with "
            "state of single parameters alone"
        )
    for key, value in state.items():
        if not isinstance(value, Tensor | int | float | None):
            raise ValueError(
                f"optimizer is a {kind}, whose state {key!r} is a {type(value).__name__}; expected "
                "tensors and numbers"
            )


def _memory(entry: Any, parameter: Tensor) -> Tensor | None:
    """Memory for one value in the folder; None if it is no tensor, for which none is needed."""
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    if not isinstance(entry, TensorStorageMetadata):
        return None
    dtype, size = entry.properties.dtype, entry.size
    # As PyTorch's optimizers have their counts; the optimizer moves it if its own are elsewhere.
    if not size:
        return torch.empty((), dtype=dtype, device="cpu")
    if size == parameter.shape:
        return torch.empty_like(parameter, dtype=dtype, requires_grad=False)
    return parameter.detach().new_empty(size, dtype=dtype)


def _split(key: str, parameters: Mapping[str, Any], folder: Path) -> tuple[str, str, str]:
    """State or settings, the parameter's name, and the name of the value."""
    part = _STATE if key.startswith(_STATE) else _SETTINGS
    words = key.removeprefix(part).split(".")
    # No parameter's name is the start of another one's.
    for end in range(1, len(words)):
        name = ".".join(words[:end])
        if name in parameters:
            return part, name, ".".join(words[end:])
    raise ValueError(f"{folder}: {key!r} in the folder is of no parameter of the optimizer")


def _joint_settings(
    members: list[str], settings: Mapping[str, dict[str, Any]], folder: Path
) -> dict[str, Any]:
    for name in members:
        if not _equal(settings[name], settings[members[0]]):
            raise ValueError(
                f"{folder}: the settings of {name!r} and {members[0]!r} differ in the folder; the "
                "optimizer has both in one group"
            )
    return settings[members[0]] if members else {}


def _placed(value: Any, own: Any) -> Any:
    """``value`` on the device of the optimizer's own, as a CUDA graph reads the rate there."""
    if isinstance(own, Tensor):
        return torch.as_tensor(value, dtype=own.dtype, device=own.device)
    return value


def _equal(settings: dict[str, Any], other: dict[str, Any]) -> bool:
    return settings.keys() == other.keys() and all(
        bool((value == other[key]).all()) if isinstance(value, Tensor) else value == other[key]
        for key, value in settings.items()
    )
