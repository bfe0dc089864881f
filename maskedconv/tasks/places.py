"""Places of a model that each task fills with values of its own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from maskedconv.conversion.sharing import held_elsewhere
from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.nn.rerandomise import rerandomises

Value = Tensor | nn.Module | None


class TaskEntry(NamedTuple):
    """An entry of a module: a parameter, a buffer, or the head.

    Attributes:
        owner: the module.
        path: its name in the model.
        kind: the registry of ``owner``: ``_parameters``, ``_buffers`` or ``_modules``.
        key: in the registry.
    """

    owner: nn.Module
    path: str
    kind: str
    key: str

    @property
    def name(self) -> str:
        """In the model."""
        return f"{self.path}.{self.key}".lstrip(".")

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.kind)[self.key]


def find_places(model: nn.Module, head: str | None) -> list[TaskEntry]:
    """Parameters that require a gradient, buffers that are not frozen, and the head.

    Raises:
        ValueError: ``model`` cannot be shared by tasks, or has no such head.
    """
    _check_model(model)
    heads = [] if head is None else [_place_of(model, head)]
    inside = {id(module) for place in heads for module in place.value.modules()}
    places = heads + [
        place
        for name, module in model.named_modules()
        if id(module) not in inside
        for place in _own_places(module, name)
    ]
    _check_values(model, places)
    return places


def check_not_taken(places: Iterable[TaskEntry], others: Iterable[Iterable[TaskEntry]]) -> None:
    """ValueError if one of the ``places`` is among those of ``others``, which other tasks fill."""
    taken = {(place.owner, place.kind, place.key) for other in others for place in other}
    for place in places:
        if (place.owner, place.kind, place.key) in taken:
            raise ValueError(
                f"{place.name} of the model has the values of another Tasks; expected a model "
                "without one: copy.deepcopy(model), or delete that one first (del tasks)"
            )


def write(places: Sequence[TaskEntry], values: Iterable[Value]) -> None:
    """Puts ``values`` into the places, by reference."""
    for (owner, _, kind, key), value in zip(places, values, strict=True):
        getattr(owner, kind)[key] = value


@torch.inference_mode(False)
def copies_of(values: list[Value]) -> list[Value]:
    """Copies that can be trained, also if they are made in inference mode."""
    return copy.deepcopy(values)


def _own_places(module: nn.Module, path: str) -> list[TaskEntry]:
    frozen = module.frozen_buffers() if isinstance(module, PartlyLearned) else ()
    parameters = module.named_parameters(recurse=False, remove_duplicate=False)
    learned = [(key, "_parameters") for key, one in parameters if one.requires_grad]
    # A buffer that is None now may hold a value later, as the held mask of a supermask.
    buffers = [
        (key, "_buffers")
        for key, buffer in module._buffers.items()
        if key not in frozen and (buffer is None or buffer.numel())
    ]
    return [TaskEntry(module, path, kind, key) for key, kind in (*learned, *buffers)]


def _place_of(model: nn.Module, head: str) -> TaskEntry:
    if not isinstance(head, str):
        raise TypeError(f"head is a {type(head).__name__}; expected the name of a module")
    names = [name for name, _ in model.named_modules() if name]
    if head not in names:
        raise ValueError(f"head is {head!r}; expected a module of the model: {', '.join(names)}")
    path, _, key = head.rpartition(".")
    place = TaskEntry(model.get_submodule(path), path, "_modules", key)
    _check_alone(model, head, place.value)
    return place


def _check_alone(model: nn.Module, head: str, module: nn.Module) -> None:
    """ValueError if something outside of the head has a part of it."""
    own = {id(p) for p in (*module.parameters(), *module.modules(), *module.buffers())}
    for name, other in model.named_modules(remove_duplicate=False):
        if name == head or name.startswith(f"{head}."):
            continue
        parts = {**other._parameters, **other._buffers, **other._modules}
        for key, part in parts.items():
            full = f"{name}.{key}".lstrip(".")
            if id(part) in own and full != head:
                raise ValueError(f"head is {head!r}, but {full} is a part of it; expected no other")


def _check_model(model: nn.Module) -> None:
    """ValueError for a model that cannot be shared by tasks."""
    if rerandomises(model):
        raise ValueError(
            "model has layers with rerandomise_every; expected 0, as the tasks share their frozen "
            "weights"
        )
    for name, module in model.named_modules():
        if isinstance(module, DistributedDataParallel):
            raise ValueError(
                f"{name or 'model'} is a DistributedDataParallel, which keeps the parameters of "
                "one task; expected its module"
            )
        if type(module).get_extra_state is not nn.Module.get_extra_state:
            raise ValueError(
                f"{name or 'model'} ({type(module).__name__}) has an extra state; expected tensors "
                "alone, as nothing else is kept for each task"
            )


def _check_values(model: nn.Module, places: Iterable[TaskEntry]) -> None:
    """ValueError for a value that is more than an entry of its module."""
    for place in places:
        if not isinstance(place.value, nn.Module | None) and type(place.value) not in (
            Tensor,
            nn.Parameter,
        ):
            raise ValueError(
                f"{place.name} is a {type(place.value).__name__}; expected a plain tensor"
            )
    parts = [place.value for place in places if place.value is not None]
    for held in held_elsewhere(model, parts):
        raise ValueError(
            f"{held} of the model holds a learned value besides the module's own entries, so that "
            "another task's would not be used; expected entries alone"
        )
