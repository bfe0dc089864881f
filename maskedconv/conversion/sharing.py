"""Finds layers and parameters that a model holds in more than one place.

A replacement happens where a layer is registered. It would untie a parameter that two layers share,
and code that reaches the layer through a plain list or a hook would keep using the old layer.
"""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import partial
from types import FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

_REGISTRIES = ("_parameters", "_buffers", "_modules")
# Enough for the list of an object whose method is a hook: hooks, method, object, list, layer.
_DEPTH = 4
# Their contents are not part of what a forward pass reads.
_OPAQUE = (type, ModuleType, torch.optim.Optimizer)


class _Reference(NamedTuple):
    """An attribute or registry entry of a module."""

    owner: nn.Module
    attribute: str
    name: str


def shared_parts(model: nn.Module, layers: Iterable[nn.Module]) -> dict[int, str]:
    """The ``layers`` that something else in ``model`` holds too, as a map from ``id`` to reason."""
    places = _places(model)
    reasons: dict[int, str] = {}
    for layer in layers:
        for held in places[id(layer)][:1]:
            reasons[id(layer)] = f"it is also held in {held.name}"
        for name, parameter in layer.named_parameters(recurse=False):
            for place in places[_key(parameter)]:
                if place.owner is not layer or place.attribute != name:
                    reasons.setdefault(id(layer), f"its {name} is shared with {place.name}")
    return reasons


def held_elsewhere(model: nn.Module, parts: Iterable[nn.Module | Tensor]) -> Iterator[str]:
    """Names of attributes that hold one of ``parts`` besides the registries of modules."""
    places = _places(model)
    for part in parts:
        for place in places[_key(part)]:
            if not any(place.attribute in vars(place.owner)[kind] for kind in _REGISTRIES):
                yield place.name


def _places(model: nn.Module) -> defaultdict[int, list[_Reference]]:
    """Places that hold each tensor's memory, and each module outside the registries."""
    places: defaultdict[int, list[_Reference]] = defaultdict(list)
    for name, module in model.named_modules():
        for attribute, found in _contents(module):
            place = _Reference(module, attribute, f"{name}.{attribute}".lstrip("."))
            places[_key(found)].append(place)
    return places


def _contents(module: nn.Module) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """The tensors of a module, and modules and tensors in its other attributes."""
    for registry in _REGISTRIES[:2]:
        for attribute, tensor in vars(module)[registry].items():
            if tensor is not None:
                yield attribute, tensor
    for attribute, value in vars(module).items():
        if attribute not in _REGISTRIES:
            for found in _reachable(value, _DEPTH, set()):
                yield attribute, found


def _reachable(value: object, depth: int, seen: set[int]) -> Iterator[nn.Module | Tensor]:
    try:
        is_part = isinstance(value, (nn.Module, Tensor))
    except ReferenceError:  # It is a proxy of an object that is gone.
        return
    if is_part:
        yield cast(nn.Module | Tensor, value)
    elif depth and id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value):
            yield from _reachable(part, depth - 1, seen)


def _parts(value: object) -> Iterable[Any]:
    """Objects that a container, a function or another object refers to."""
    match value:
        case dict():
            return [*value, *value.values()]
        case list() | tuple() | set() | frozenset():
            return value
        case partial():
            return [value.func, *value.args, *value.keywords.values()]
        case MethodType():
            return [value.__self__, value.__func__]
        case FunctionType():
            return [*_closure(value), *(value.__defaults__ or ())]
        case weakref.ref():
            return [value()]
    attributes = None if isinstance(value, _OPAQUE) else getattr(value, "__dict__", None)
    return attributes.values() if isinstance(attributes, dict) else ()


def _closure(function: FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # The variable has no value yet.
            continue


def _key(value: nn.Module | Tensor) -> int:
    """A key that is equal for tensors that share memory, and for the same object otherwise."""
    if type(value) in (Tensor, nn.Parameter) and value.layout == torch.strided:
        return value.untyped_storage()._cdata  # type: ignore[operator]
    return id(value)
