"""Checks of a new task's name and head."""

from __future__ import annotations

from collections.abc import Container, Iterator

from torch import Tensor, nn

from maskedconv.tasks.places import TaskEntry


def check_name(name: str, known: Container[str]) -> None:
    """TypeError or ValueError for a name that no new task can have."""
    if not isinstance(name, str):
        raise TypeError(f"name is a {type(name).__name__}; expected a str")
    if not name or "." in name:
        raise ValueError(f"name is {name!r}; expected a name without dots")
    if name in known:
        raise ValueError(f"name is {name!r}, which exists; expected a new one, or remove it")


def check_head(head: nn.Module, tasks: nn.Module, place: TaskEntry | None, *, first: bool) -> None:
    """TypeError or ValueError for a head that no new task can have.

    Args:
        tasks: the module of all tasks; none of them may have a part of ``head``.
        place: of the heads in the model; None if tasks have none.
        first: whether the task is the first one. Its head takes the place of the model's, and may
            have parts of it.
    """
    if place is None:
        raise ValueError("head is given; expected None, as Tasks was made without head=")
    if not isinstance(head, nn.Module):
        raise TypeError(f"head is a {type(head).__name__}; expected a module")
    allowed = {id(one) for _, one in _parts(place.value)} if first else set()
    others = {id(one): name for name, one in _parts(tasks)}
    for _, one in _parts(head):
        if id(one) in others and id(one) not in allowed:
            raise ValueError(
                f"head has {others[id(one)]}, of which each task needs its own; expected a new "
                "module, or copy.deepcopy(head)"
            )


def _parts(module: nn.Module) -> Iterator[tuple[str, nn.Module | Tensor]]:
    """The modules, parameters and buffers of ``module``, with their names."""
    yield from module.named_modules()
    yield from module.named_parameters()
    yield from module.named_buffers()
