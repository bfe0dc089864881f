"""Models as they are found: wrapped by PyTorch, or without memory as yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from maskedconv.nn.frozen_statistics import FrozenStatistics
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.wrappers import WRAPPERS

Value = TypeVar("Value")


def own_names(model: nn.Module) -> dict[str, str]:
    """Each name in the model's state dict -> the network's own, without those of wrappers."""
    wrappers = _wrappers(model)
    return {name: _unwrapped(name, wrappers) for name in model.state_dict()}


def own_module_names(model: nn.Module) -> dict[str, str]:
    """As :func:`own_names`, of the modules; a module under each of its names."""
    wrappers = _wrappers(model)
    return {name: _unwrapped(name, wrappers) for name, _ in _modules(model)}


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """The state dict, by the network's own names."""
    state = model.state_dict()
    return {name: state[key] for key, name in own_names(model).items()}


def partly_learned(model: nn.Module) -> dict[str, PartlyLearned]:
    """The partly learned layers under each of their names, the network's own.

    A state dict has the values of a layer under each of them as well.
    """
    names = own_module_names(model)
    return {names[key]: m for key, m in _modules(model) if isinstance(m, PartlyLearned)}


def names_of(
    layers: Mapping[str, PartlyLearned], parts: Callable[[PartlyLearned], Iterable[str]]
) -> list[str]:
    """Names in the state dict of the ``parts`` of all layers, as of :func:`partly_learned`."""
    return [f"{n}.{part}".lstrip(".") for n, one in layers.items() for part in parts(one)]


def frozen_buffer_names(layers: Mapping[str, PartlyLearned]) -> set[str]:
    """As :func:`names_of`, of the frozen filters."""
    return set(names_of(layers, lambda layer: layer.frozen_buffers()))


def names_left_out(model: nn.Module, known: Mapping[str, object]) -> dict[str, str]:
    """Names that ``known`` lacks -> another name of the same module, which it has.

    Old checkpoints name a layer that has several names by the first one alone.
    """
    own, names = own_module_names(model), dict[int, dict[str, None]]()
    for key, module in _modules(model):
        names.setdefault(id(module), {})[own[key]] = None
    found: dict[str, str] = {}
    for group in names.values():
        there = [name for name in group if name in known]
        found |= {name: there[0] for name in group if there and name not in known}
    return found


def under_all_names(entries: Mapping[str, Value], left_out: Mapping[str, str]) -> dict[str, Value]:
    """``entries`` of layers' values, with those of :func:`names_left_out` set to the known ones."""
    parts = [(key, *key.rpartition(".")[::2]) for key in entries] if left_out else []
    return dict(entries) | {
        f"{name}.{part}": entries[key]
        for name, known in left_out.items()
        for key, layer, part in parts
        if layer == known
    }


def frozen_norms(model: nn.Module) -> list[str]:
    """The norms with frozen statistics under each of their names, the network's own."""
    names = own_module_names(model)
    return [names[key] for key, m in _modules(model) if isinstance(m, FrozenStatistics)]


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


def check_can_write(state: Mapping[str, Tensor], path: Path) -> None:
    """ValueError for a tensor whose elements share memory: no value can be copied to it.

    PyTorch finds that out after it has loaded other values.

    Args:
        path: the file that would be loaded.
    """
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
            continue
        if any(size > 1 and not tensor.stride(dim) for dim, size in enumerate(tensor.shape)):
            raise ValueError(
                f"{path} cannot be loaded: {key} of the model is a view whose elements share "
                "memory; expected a tensor of its own, as of contiguous()"
            )


def materialise(model: nn.Module) -> None:
    """Gives tensors on the meta device memory on the CPU, with any values.

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


def _modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    return model.named_modules(remove_duplicate=False)


def _wrappers(model: nn.Module) -> dict[str, str]:
    return {
        name: inner
        for name, module in _modules(model)
        if (inner := WRAPPERS.get(type(module).__name__)) and inner in module._modules
    }


def _unwrapped(name: str, wrappers: dict[str, str]) -> str:
    kept, path = [], ""
    for part in name.split("."):
        if wrappers.get(path) != part:
            kept.append(part)
        path = f"{path}.{part}".lstrip(".")
    return ".".join(kept)
