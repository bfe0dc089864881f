"""Names of a task's values in the state dict of the model."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from maskedconv.tasks.places import TaskEntry


def entry_names(model: nn.Module, places: Sequence[TaskEntry]) -> list[tuple[str, str]]:
    """Each name in the state dict of ``model``, and the one name of the same value.

    A module that stands in several places has several names.
    """
    owned: dict[int, list[TaskEntry]] = {}
    for place in places:
        owned.setdefault(id(place.owner), []).append(place)
    return [
        (f"{name}.{part}".lstrip("."), f"{place.path}.{part}".lstrip("."))
        for name, module in model.named_modules(remove_duplicate=False)
        for place in owned.get(id(module), ())
        for part in _parts(place)
    ]


def _parts(place: TaskEntry) -> list[str]:
    """Names of the values within the owner."""
    if place.kind == "_modules":
        return [f"{place.key}.{name}" for name in place.value.state_dict()]
    return [place.key]
