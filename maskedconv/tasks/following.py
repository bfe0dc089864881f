"""Backward passes with the values of the task that was active in the forward pass.

Activation checkpointing runs parts of the model again within backward, when another task may be
active. So each output's place in the autograd graph has a hook that makes its task active before
anything of that forward pass is computed again. Autograd goes through the graph from the latest
operation to the earliest, and so through one forward pass after another.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from maskedconv.nn.global_threshold import update_thresholds
from maskedconv.nn.own_hooks import OwnHooks
from maskedconv.tracing import is_traced

NO_PASS = -1


def current_pass() -> int:
    """The number of the backward pass that runs in this thread; -1 if none does."""
    return torch._C._current_graph_task_id()


class Switched(Protocol):
    """A model with tasks."""

    model: nn.Module

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def active(self) -> str | None: ...

    def _switch_in_backward(self, name: str) -> bool:
        """Makes a task active that may not exist any more; says whether it does."""


class Following(OwnHooks):
    """Hooks of a model with tasks. A copy of the model alone has them without effect."""

    def __init__(self) -> None:
        self._owner: Callable[[], Switched | None] = _nobody
        self._passes: set[int] = set()
        self._known_in = NO_PASS

    def __reduce__(self) -> tuple[Any, ...]:
        return Following, ()

    @property
    def owner(self) -> nn.Module | None:
        """The tasks; None if the model with these hooks has none."""
        found = self._owner()
        return found if isinstance(found, nn.Module) else None

    def register(self, model: nn.Module) -> None:
        model.register_forward_pre_hook(self._before_forward, with_kwargs=True)
        model.register_forward_hook(self._after_forward, with_kwargs=True)

    def attach(self, owner: Switched) -> None:
        """Follows the tasks of ``owner``, whose model has these hooks."""
        self._owner = weakref.ref(owner)

    def switched(self) -> None:
        """Notes that a task was made active; the backward pass that runs, if any, has its task."""
        self._known_in = current_pass()

    def _before_forward(self, model: nn.Module, arguments: Any, options: Any) -> None:
        if self._tasks_differ() and current_pass() not in (NO_PASS, self._known_in):
            raise RuntimeError(
                "the whole model is called within a backward pass, and nothing says for which "
                "task; expected using(name) around the call, or, for activation checkpointing, "
                "checkpoint(model, ..., use_reentrant=False) of the model and nothing else, "
                "checkpoints of its parts, or checkpoint(tasks, x, task_ids, ...)"
            )

    def _after_forward(self, model: nn.Module, arguments: Any, options: Any, output: Any) -> None:
        owner = self._owner()
        if owner is None or not self._tasks_differ() or current_pass() != NO_PASS:
            return
        task = str(owner.active)
        # Inputs that the model returns unchanged belong to another forward pass.
        before = list(_nodes((arguments, options)))
        for node in _nodes(output):
            if not any(node is other for other in before):
                node.register_prehook(partial(self._before_backward, task))

    def _tasks_differ(self) -> bool:
        """Whether another task may be active later; False while the model is recorded."""
        if torch.compiler.is_compiling() or is_traced(None):
            return False
        owner = self._owner()
        return owner is not None and len(owner.names) > 1

    def _before_backward(self, task: str, gradients: Any) -> None:
        """Makes ``task`` active until the end of the backward pass."""
        owner = self._owner()
        if owner is None:
            return
        before, number = str(owner.active), current_pass()
        if task == before:
            self.switched()
        elif owner._switch_in_backward(task):
            update_thresholds(owner.model)
            if number not in self._passes:
                self._passes.add(number)
                end = _End(partial(self._return, number, before))
                Variable._execution_engine.queue_callback(end)

    def _return(self, number: int, task: str) -> None:
        """Makes the task active that was before the backward pass."""
        self._passes.discard(number)
        owner = self._owner()
        if owner is not None:
            owner._switch_in_backward(task)


class _End:
    """Calls a function once, at the end of a backward pass, or when it has failed."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._functions = [function]

    def __call__(self) -> None:
        while self._functions:
            self._functions.pop()()

    __del__ = __call__


def _nobody() -> None:
    return None


def _nodes(values: Any) -> Iterator[Node]:
    for one in tree_leaves(values):
        if isinstance(one, Tensor) and one.grad_fn is not None:
            yield one.grad_fn
