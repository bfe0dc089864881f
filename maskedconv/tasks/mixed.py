"""Batches of several tasks: by layer where this is right, else one task after another."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from maskedconv.nn.scored import scored_layers
from maskedconv.tasks.agreement import disagreement
from maskedconv.tasks.by_layer import ByLayer, NotByLayer
from maskedconv.tasks.places import TaskEntry, Value
from maskedconv.tasks.rows import Order, check_outputs, has_rows


class Owner(Protocol):
    """The tasks of a model."""

    def _emptied(self) -> AbstractContextManager[Mapping[str, Sequence[Value]]]:
        """Context in which the places of the model are empty; gives the values of all tasks."""

    def _switched(self, name: str) -> AbstractContextManager[None]:
        """Context in which a task is active."""


class Mixed:
    """Computes the outputs of batches, and remembers what it found out about the model.

    It does not hold the tasks, which hold it: they are to be freed as soon as nothing else does.

    Args:
        places: of the model.
    """

    def __init__(self, model: nn.Module, places: Sequence[TaskEntry]) -> None:
        self._model, self._places = model, places
        self._reason = ""
        self._known: set[tuple[int, ...]] = set()

    def outputs(self, owner: Owner, arguments: Sequence[Any], order: Order) -> list[Tensor]:
        """The output of each group."""
        outputs, reason = self._by_layer(owner, arguments, order)
        if outputs is None:
            outputs = self._one_by_one(owner, arguments, order)
            # An input that is wrong has failed again by now.
            self._remember(reason)
        check_outputs(outputs, order.groups)
        return outputs

    def _remember(self, reason: str) -> None:
        """Warns of a ``reason`` not to run the model by layer, and does not try it again."""
        self._reason = self._reason or reason
        if reason:
            warnings.warn(
                "the tasks of a batch are computed one after another, as the model cannot be run "
                f"layer by layer for all: {reason}",
                stacklevel=7,
            )

    def _one_by_one(self, owner: Owner, arguments: Sequence[Any], order: Order) -> list[Tensor]:
        count, outputs = len(order.places), []
        arranged = order.sort(arguments)
        for group in order.groups:
            own = [group.of(one) if has_rows(one, count) else one for one in arranged]
            with owner._switched(group.task):
                outputs.append(self._model(*own))
        return outputs

    def _by_layer(
        self, owner: Owner, arguments: Sequence[Any], order: Order
    ) -> tuple[list[Tensor] | None, str]:
        """The outputs, or None if they cannot be computed so, and why if it is a fault."""
        training = any(module.training for module in self._model.modules())
        if len(order.groups) == 1 or training or self._reason or _keeps_otherwise():
            return None, ""
        try:
            self._verify(owner, arguments, order)
            return self._run(owner, arguments, order), ""
        except torch.OutOfMemoryError:
            return None, ""
        # Whatever fails where a layer has no values: the tasks one by one show if it is an error.
        except Exception as error:
            return None, str(error) or type(error).__name__

    def _run(self, owner: Owner, arguments: Sequence[Any], order: Order) -> list[Tensor]:
        with owner._emptied() as values:
            run = ByLayer(self._places, values, order.groups)
            return run.run(self._model, order.sort(arguments))

    def _verify(self, owner: Owner, arguments: Sequence[Any], order: Order) -> None:
        """Runs a batch of one row more by layer and one by one, for the first batch of each shape.

        A tensor that has as many rows as the batch in both has the rows in its first dimension.
        """
        first = arguments[0]
        shape = tuple(first.shape[1:])
        if shape in self._known:
            return
        _check_model(self._model)
        count = len(order.places)
        more = [
            torch.cat((one, one[order.places[-1:].to(one.device)])) if has_rows(one, count) else one
            for one in arguments
        ]
        with torch.no_grad():
            outputs = self._compare(owner, more, order.with_one_more())
        # Equal rows do not show that a model mixes them; nor do equal outputs, as of zero heads.
        if _vary([first]) and _vary(outputs):
            self._known.add(shape)

    def _compare(self, owner: Owner, arguments: Sequence[Any], order: Order) -> list[Tensor]:
        """The outputs; NotByLayer if those by layer are not those of each task's rows alone."""
        found = self._run(owner, arguments, order)
        expected = self._one_by_one(owner, arguments, order)
        check_outputs(expected, order.groups)
        used = (*arguments, *self._model.parameters(), *self._model.buffers())
        if differs := disagreement(found, expected, order.groups, used):
            raise NotByLayer(differs)
        return expected


def _vary(tensors: Sequence[Tensor]) -> bool:
    """Whether rows differ, within a tensor or between tensors with rows of one size."""
    pairs = itertools.product(tensors, repeat=2)
    same = [pair for pair in pairs if pair[0].shape[1:] == pair[1].shape[1:]]
    return any(bool((one != other[:1]).any()) for one, other in same)


def _keeps_otherwise() -> bool:
    """Whether the caller changes what autograd keeps, as in a part that it checkpoints."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return torch.is_grad_enabled() and hooks is not None


def _check_model(model: nn.Module) -> None:
    """NotByLayer if a module needs all its rows, or a task's values of other modules."""
    if any(layer.settings.threshold == "global" for layer in scored_layers(model)):
        raise NotByLayer("its supermasks have one threshold for all layers of a task")
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not module.track_running_stats:
            raise NotByLayer(f"{name} normalises with the statistics of the batch")
