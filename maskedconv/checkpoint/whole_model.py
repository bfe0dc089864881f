"""Models as they are found: wrapped by PyTorch, or without memory as yet."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from maskedconv.nn.frozen_statistics import FrozenStatistics
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.wrappers import WRAPPERS


def own_names(model: nn.Module) -> dict[str, str]:
    """Each name in the model's state dict -> the network's own, without those of wrappers."""
    wrappers = _wrappers(model)
    return {name: _unwrapped(name, wrappers) for name in model.state_dict()}


def own_module_names(model: nn.Module) -> dict[str, str]:
    """As :func:`own_names`, of the modules."""
    wrappers = _wrappers(model)
    return {name: _unwrapped(name, wrappers) for name, _ in model.named_modules()}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, by the network's own names."""
    state = model.state_dict()
    return {name: state[key] for key, name in own_names(model).items()}


def partly_learned(model: nn.Module) -> dict[str, PartlyLearned]:
    """The partly learned layers, each once, by the network's own names."""
    names = own_module_names(model)
    return {names[key]: m for key, m in model.named_modules() if isinstance(m, PartlyLearned)}


def frozen_norms(model: nn.Module) -> list[str]:
    """The norms with frozen statistics, each once, by the network's own names."""
    names = own_module_names(model)
    return [names[key] for key, m in model.named_modules() if isinstance(m, FrozenStatistics)]


def check_can_materialise(model: nn.Module) -> None:
    """ValueError for a buffer on the meta device that no state dict has values for."""
    for name, module in model.named_modules():
        for key in module._non_persistent_buffers_set:
            buffer = module._buffers.get(key)
            if buffer is not None and buffer.is_meta and buffer.numel():
                raise ValueError(
                    f"{name}.{key} of the model is on the meta device and is not part of a "
                    "checkpoint; expected it in memory"
                )


def materialise(model: nn.Module) -> None:
    """Gives what is on the meta device memory on the CPU, of any values.

    Parameters that several modules share stay shared.
    """
    made: dict[Tensor, Tensor] = {}
    for entries in _entries(model):
        for name, tensor in entries.items():
            if tensor is not None and tensor.is_meta:
                if tensor not in made:
                    made[tensor] = _in_memory(tensor)
                entries[name] = made[tensor]


def _in_memory(tensor: Tensor) -> Tensor:
    values = torch.empty_like(tensor, device="cpu", requires_grad=False)
    return (
        nn.Parameter(values, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values
    )


def _entries(model: nn.Module) -> Iterator[dict[str, Tensor | None]]:
    for module in model.modules():
        yield module._parameters  # type: ignore[misc]
        yield module._buffers


def _wrappers(model: nn.Module) -> dict[str, str]:
    return {
        name: inner
        for name, module in model.named_modules()
        if (inner := WRAPPERS.get(type(module).__name__)) and inner in module._modules
    }


def _unwrapped(name: str, wrappers: dict[str, str]) -> str:
    kept, path = [], ""
    for part in name.split("."):
        if wrappers.get(path) != part:
            kept.append(part)
        path = f"{path}.{part}".lstrip(".")
    return ".".join(kept)
