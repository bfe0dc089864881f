"""Runs a model once for a batch of several tasks, sorted by task.

Each module with values of the tasks runs once for each task, on its rows. All others run once on
the whole batch, and so do the frozen filters of a layer and norms with running statistics. While
they run, the model has no values of any task, so that nothing reads those of a wrong one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.nn import functional as F

from maskedconv.nn.partly_learned import PartlyLearned
from maskedconv.tasks.norms import is_joint_norm, normalise
from maskedconv.tasks.places import TaskEntry, Value, write
from maskedconv.tasks.rows import Group, described, has_rows


class NotByLayer(Exception):
    """The model cannot be run once for several tasks; says why."""


class ByLayer:
    """One run of a model for several tasks.

    Args:
        places: of the model, which are empty.
        values: of each task, in the order of ``places``.
        groups: the rows of each task.

    Attributes:
        group: the one that runs, within a module that runs for each; None otherwise.
    """

    def __init__(
        self,
        places: Sequence[TaskEntry],
        values: Mapping[str, Sequence[Value]],
        groups: Sequence[Group],
    ) -> None:
        self.groups = groups
        self.group: int | None = None
        self._grad = torch.is_grad_enabled()
        self._count = groups[-1].stop
        taken = [values[group.task] for group in groups]
        self._heads: list[tuple[TaskEntry, _Heads]] = []
        own: dict[nn.Module, list[int]] = {}
        for index, place in enumerate(places):
            found = [task[index] for task in taken]
            if place.kind == "_modules":
                self._heads.append((place, _Heads(self, found)))
            elif any(one is not None for one in found):
                own.setdefault(place.owner, []).append(index)
        self._owners = {
            module: _Owner(
                self,
                module,
                [places[i] for i in chosen],
                [[one[i] for i in chosen] for one in taken],
            )
            for module, chosen in own.items()
        }

    def run(self, model: nn.Module, arguments: Sequence[Any]) -> list[Tensor]:
        """The output of each group.

        Raises:
            NotByLayer: a module does not take one tensor with the rows of the batch, or is not
                called.
        """
        with self._patched(), self._kept():
            output = model(*arguments)
        for owner in self._owners.values():
            if not owner.called:
                raise NotByLayer(f"{owner.name} is not called")
        for _, heads in self._heads:
            if output is heads.output:
                return heads.outputs
            if heads.sizes_differ:
                raise NotByLayer("heads of different sizes do not give the model's own output")
        self.check(output, "the model returns")
        return [group.of(output) for group in self.groups]

    def check(self, value: object, what: str) -> None:
        """NotByLayer unless ``value`` is a tensor with as many rows as the batch."""
        if not has_rows(value, self._count):
            raise NotByLayer(f"{what} {described(value)} for a batch of {self._count} rows")

    def check_grad(self, name: str) -> None:
        """NotByLayer for a module without gradients in a run with them.

        Backward may compute it again, with the values of the active task.
        """
        if self._grad and not torch.is_grad_enabled():
            raise NotByLayer(f"{name} is called without gradients")

    def each(self, input: Tensor, runs: Sequence[Callable[[Tensor], Tensor]]) -> list[Tensor]:
        """The outputs of the ``runs``, one for each group, for its rows of ``input``."""
        return [run(group.of(input)) for group, run in zip(self.groups, runs, strict=True)]

    def _kept(self) -> AbstractContextManager[None]:
        """Context in which a part that backward computes again raises an error."""
        reason = "activation checkpointing, or other hooks on saved tensors"
        return disable_saved_tensors_hooks(reason) if self._grad else nullcontext()

    @contextmanager
    def _patched(self) -> Iterator[None]:
        before = {module: vars(module).get("forward") for module in self._owners}
        try:
            for module, owner in self._owners.items():
                vars(module)["forward"] = owner.forward
            self._put_heads([heads for _, heads in self._heads])
            yield
        finally:
            for module, forward in before.items():
                del vars(module)["forward"]
                if forward is not None:
                    vars(module)["forward"] = forward
            self._put_heads([None] * len(self._heads))

    def _put_heads(self, heads: Sequence[Value]) -> None:
        write([place for place, _ in self._heads], heads)


class _Owner:
    """A module with values of the tasks, and the forward that stands for its own.

    Args:
        places: of the module.
        values: of each group, in the order of ``places``.
    """

    def __init__(
        self,
        run: ByLayer,
        module: nn.Module,
        places: Sequence[TaskEntry],
        values: Sequence[Sequence[Value]],
    ) -> None:
        self._run, self._module, self._plain = run, module, module.forward
        self._places, self._values = places, values
        self.name = places[0].path or "the model"
        self.called = False

    def forward(self, *arguments: Any, **options: Any) -> Any:
        self.called = True
        self._run.check_grad(self.name)
        if self._run.group is not None:
            return self._with_values(self._run.group, self._plain, *arguments, **options)
        if len(arguments) != 1 or options:
            raise NotByLayer(f"{self.name} takes several arguments")
        self._run.check(arguments[0], f"{self.name} takes")
        return self._joint(arguments[0])

    def _joint(self, input: Tensor) -> Tensor:
        """The output for the whole batch."""
        module, groups = self._module, self._run.groups
        if is_joint_norm(module):
            return normalise(module, input, self._places, self._values, groups)
        frozen = module.frozen_output(input) if isinstance(module, PartlyLearned) else None
        if isinstance(module, PartlyLearned) and frozen is not None:
            return module.joined_output(self._each(module.learned_output, input), frozen)
        return self._each(self._plain, input)

    def _each(self, run: Callable[..., Tensor], input: Tensor) -> Tensor:
        """The outputs of ``run`` with the values of each group, for its rows of ``input``."""
        runs = [partial(self._with_values, group, run) for group in range(len(self._values))]
        whole = torch.cat(self._run.each(input, runs))
        self._run.check(whole, f"{self.name} returns")
        return whole

    def _with_values(
        self, group: int, run: Callable[..., Any], *arguments: Any, **options: Any
    ) -> Any:
        outer, self._run.group = self._run.group, group
        write(self._places, self._values[group])
        try:
            return run(*arguments, **options)
        finally:
            write(self._places, [None] * len(self._places))
            self._run.group = outer


class _Heads(nn.Module):
    """Stands for the heads of all groups. Outputs of different sizes get zeros at their ends."""

    def __init__(self, run: ByLayer, heads: Sequence[Any]) -> None:
        super().__init__()
        self._run, self._heads = run, heads
        self.output: Tensor | None = None
        self.outputs: list[Tensor] = []

    @property
    def sizes_differ(self) -> bool:
        return len({output.shape[1:] for output in self.outputs}) > 1

    def forward(self, input: Tensor) -> Tensor:
        self._run.check_grad("the head")
        if self._run.group is not None:
            return self._heads[self._run.group](input)
        self._run.check(input, "the head takes")
        self.outputs = self._run.each(input, self._heads)
        width = max(output.size(-1) for output in self.outputs)
        padded = [F.pad(output, (0, width - output.size(-1))) for output in self.outputs]
        self.output = torch.cat(padded if self.sizes_differ else self.outputs)
        self._run.check(self.output, "the head returns")
        return self.output
