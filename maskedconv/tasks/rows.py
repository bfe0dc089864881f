"""The rows of a batch by task, next to each other, and outputs in the order of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeGuard

import torch
from torch import Tensor


class Group(NamedTuple):
    """Rows ``start`` to ``stop`` of a sorted batch, of one task."""

    task: str
    start: int
    stop: int

    def of(self, tensor: Tensor) -> Tensor:
        """Its rows, a view."""
        return tensor[self.start : self.stop]

    @property
    def size(self) -> int:
        return self.stop - self.start


class Order(NamedTuple):
    """How a batch is sorted by task.

    Attributes:
        places: ``[N]``, the rows of the batch in the sorted order.
        groups: one for each task that has rows.
    """

    places: Tensor
    groups: list[Group]

    def sort(self, arguments: Sequence[Any]) -> list[Any]:
        """``arguments`` with the rows of all tensors of N rows sorted."""
        return [
            one[self.places.to(one.device)] if has_rows(one, len(self.places)) else one
            for one in arguments
        ]

    def joined(self, outputs: Sequence[Tensor]) -> Tensor:
        """The outputs of the groups in the order of the batch."""
        together = torch.cat(list(outputs))
        return together[self.places.argsort().to(together.device)]

    def listed(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """The single rows of the outputs in the order of the batch."""
        rows = [row for output in outputs for row in output]
        return [rows[place] for place in self.places.argsort().tolist()]

    def with_one_more(self) -> Order:
        """The order of a batch with one row more at its end, of the last task."""
        *others, last = self.groups
        more = self.places.new_tensor([len(self.places)])
        groups = [*others, last._replace(stop=last.stop + 1)]
        return Order(torch.cat((self.places, more)), groups)


def order_of(task_ids: Sequence[str] | Tensor, names: Sequence[str], count: int) -> Order:
    """The order of a batch.

    Args:
        task_ids: a name for each row, or a tensor of indices of ``names``.
        names: of all tasks; groups have their order. Without rows, the first has a group of none.
        count: of rows.

    Raises:
        TypeError, ValueError: they are of another kind or number, or not tasks.
    """
    given = _names_of(task_ids, names)
    if len(given) != count:
        raise ValueError(
            f"task_ids has {len(given)} entries; expected one for each of {count} rows"
        )
    if unknown := [name for name in given if name not in names]:
        raise ValueError(f"task_ids has {unknown[0]!r}; expected some of {', '.join(names)}")
    places: list[int] = []
    groups = []
    for name in names:
        rows = [row for row, one in enumerate(given) if one == name]
        if rows:
            groups.append(Group(name, len(places), len(places) + len(rows)))
        places += rows
    if not given:
        groups = [Group(name, 0, 0) for name in names[:1]]
    return Order(torch.tensor(places, dtype=torch.int64), groups)


def check_outputs(outputs: Sequence[Any], groups: Sequence[Group]) -> None:
    """TypeError unless each is a tensor with a row for each of its group."""
    for output, group in zip(outputs, groups, strict=True):
        if not has_rows(output, group.size):
            raise TypeError(
                f"the model returns {described(output)} for {group.size} rows of task "
                f"{group.task!r}; expected a tensor with one row for each"
            )


def described(value: object) -> str:
    """The shape of a tensor, or the type of anything else."""
    return str(list(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def rows_of(tensor: Tensor) -> int:
    """The size of the first dimension; -1 if there is none."""
    return tensor.size(0) if tensor.dim() else -1


def has_rows(value: object, count: int) -> TypeGuard[Tensor]:
    """Whether ``value`` is a tensor of ``count`` rows."""
    return isinstance(value, Tensor) and rows_of(value) == count


def _names_of(task_ids: Sequence[str] | Tensor, names: Sequence[str]) -> list[str]:
    if isinstance(task_ids, str):
        raise TypeError(f"task_ids is {task_ids!r}; expected a name for each row")
    if not isinstance(task_ids, Tensor):
        return list(task_ids)
    if task_ids.dim() != 1 or task_ids.dtype != torch.int64:
        raise TypeError(
            f"task_ids is {list(task_ids.shape)} of {task_ids.dtype}; expected [N], int64"
        )
    indices = task_ids.tolist()
    if wrong := [index for index in indices if not 0 <= index < len(names)]:
        raise ValueError(f"task_ids has {wrong[0]}; expected 0 to {len(names) - 1}")
    return [names[index] for index in indices]
