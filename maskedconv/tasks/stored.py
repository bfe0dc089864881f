"""Values of a task, whether it is active or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from maskedconv.nn.remembered import is_recorded, record_values, with_records
from maskedconv.tasks.places import TaskEntry, Value, write


class _Part(nn.Module):
    """Stands for a module of the model. Records of its tensors outlive moves, and not loading."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        return super()._apply(with_records(fn), recurse)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        recorded = [key for key, buffer in self._buffers.items() if is_recorded(buffer)]
        super()._load_from_state_dict(*arguments)
        for key in recorded:
            record_values(getattr(self, key))


class Stored(NamedTuple):
    """Modules with the names of the model's, which hold a task's values.

    Attributes:
        root: stands for the model.
        places: as the model's, and in the same order.
    """

    root: nn.Module
    places: list[TaskEntry]

    def fill(self, values: Sequence[Value]) -> None:
        write(self.places, values)

    def values(self) -> list[Value]:
        return [place.value for place in self.places]


def make_stored(places: Sequence[TaskEntry]) -> Stored:
    """An empty one for the places of a model."""
    root = _Part()
    return Stored(root, [_mirrored(root, place) for place in places])


def take_mode(head: Any, before: nn.Module | None) -> None:
    """Gives the head of a task the mode of the one whose place it takes."""
    if before is not None and head.training != before.training:
        head.train(before.training)


def count_bytes(values: Sequence[Value]) -> int:
    """The bytes of all tensors, each once."""
    tensors: dict[int, torch.Tensor] = {}
    for value in values:
        found = value.state_dict().values() if isinstance(value, nn.Module) else (value,)
        tensors |= {id(one): one for one in found if one is not None}
    return sum(tensor.nbytes for tensor in tensors.values())


def check_alike(name: str, stored: Sequence[Value], present: Sequence[Value]) -> None:
    """ValueError if a task was left behind when the model alone was moved or converted."""
    for one, other in zip(stored, present, strict=True):
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            kinds = [f"{tensor.dtype} on {tensor.device}" for tensor in (one, other)]
            if kinds[0] != kinds[1]:
                raise ValueError(
                    f"task {name!r} is {kinds[0]}, but the model is {kinds[1]}; expected both "
                    "alike: call .to() of the tasks, not of the model"
                )
            return


def _mirrored(root: nn.Module, place: TaskEntry) -> TaskEntry:
    module = root
    for part in filter(None, place.path.split(".")):
        module = module._modules.setdefault(part, _Part())  # type: ignore[assignment]
    getattr(module, place.kind)[place.key] = None
    if place.key in place.owner._non_persistent_buffers_set:
        module._non_persistent_buffers_set.add(place.key)
    return place._replace(owner=module)
