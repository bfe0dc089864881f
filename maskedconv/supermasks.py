"""Many tasks over one random network, each a mask.

Source: Wortsman et al. 2020, *Supermasks in Superposition* (arXiv 2006.14769). The task of an input
is given, or inferred by one gradient step.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from maskedconv.nn.global_threshold import update_thresholds
from maskedconv.nn.rerandomise import rerandomises
from maskedconv.nn.scored import scored_layers
from maskedconv.superposition import infer, merged


class _Task(NamedTuple):
    """Bits of each layer's mask, and the other parameters and buffers, such as those of norms."""

    bits: list[Tensor]
    others: dict[str, Tensor]


class Supermasks:
    """The masks of several tasks for one model, which is switched between them in place.

    A mask takes one bit for each weight. Values that no mask stands for (a BatchNorm's running
    statistics and affine parameters, layers without supermasks) are stored for each task, as they
    are. Scores are not stored::

        tasks = Supermasks(model)
        train(model, first)
        tasks.add("first")
        tasks.reset_scores()
        train(model, second)
        tasks.add("second")
        tasks.switch("first")

    Args:
        model: has supermask layers, as of ``convert_(model, method=methods.supermask())``.

    Raises:
        ValueError: ``model`` has none, or one with ``rerandomise_every``.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._layers = model, scored_layers(model)
        if not self._layers:
            raise ValueError(f"model ({type(model).__name__}) has no supermask layers")
        if rerandomises(model):
            raise ValueError(
                "model has layers with rerandomise_every; expected 0, as the tasks share their "
                "weights"
            )
        self._tasks: dict[str, _Task] = {}
        # Values other than scores that a switch has replaced.
        self._replaced: dict[str, Tensor] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The tasks, in the order in which they were added."""
        return tuple(self._tasks)

    @torch.no_grad()
    def add(self, name: str) -> None:
        """Stores the model's present masks as the task ``name``; replaces a task of that name.

        Raises:
            ValueError: layers with ``threshold="global"`` differ in ``k``, or FSDP2 shards their
                scores.
        """
        update_thresholds(self._model)
        bits = [layer.pack_mask() for layer in self._layers]
        others = {key: tensor.clone() for key, tensor in self._others().items()}
        self._tasks[name] = _Task(bits, others)

    @torch.no_grad()
    def switch(self, name: str) -> None:
        """Makes the model compute what it did when the task was added, to use it.

        The scores stay, and :meth:`release` brings the other values back that are trained with
        them. Training before that changes neither.

        Raises:
            ValueError: there is no such task; the message lists those that exist.
        """
        task = self._task(name)
        if self._replaced is None:
            self._replaced = {key: tensor.clone() for key, tensor in self._others().items()}
        for layer, bits in zip(self._layers, task.bits, strict=True):
            layer.hold_mask(bits)
        for key, tensor in self._others().items():
            tensor.copy_(task.others[key])

    @torch.inference_mode(False)
    def infer(self, *arguments: Any) -> str:
        """The task that a batch is probably of. The model stays as it is.

        One gradient step over the mixture of all masks (Wortsman et al. 2020, section 3.2), by
        :mod:`maskedconv.superposition`. Classes need no labels; more inputs make it more certain.

        Args:
            arguments: of the model, of one task, such as ``[N, C, H, W]``; the output is
                ``[N, classes]``.

        Raises:
            ValueError: there are no tasks, or a layer cannot be merged.
        """
        if not self._tasks:
            raise ValueError("there are no tasks; expected at least one")
        other = copy.deepcopy(self)
        return infer({name: partial(other._merged, name) for name in self._tasks}, *arguments)

    def _merged(self, name: str) -> nn.Module:
        self.switch(name)
        return merged(self._model)

    @torch.no_grad()
    def release(self) -> None:
        """Makes the model what it was before :meth:`switch`, to train its scores."""
        for layer in self._layers:
            layer.hold_mask(None)
        if self._replaced is not None:
            for key, tensor in self._others().items():
                tensor.copy_(self._replaced[key])
            self._replaced = None

    def reset_scores(self, generator: torch.Generator | None = None) -> None:
        """Uses the scores again, and draws them anew; the frozen weights stay.

        Args:
            generator: on the CPU; None for torch's own.
        """
        self.release()
        for layer in self._layers:
            layer.reset_scores(generator)

    def nbytes(self, name: str) -> int:
        """Bytes in memory of a task's masks and other values.

        Raises:
            ValueError: there is no such task.
        """
        task = self._task(name)
        return sum(tensor.nbytes for tensor in (*task.bits, *task.others.values()))

    def _task(self, name: str) -> _Task:
        if name not in self._tasks:
            known = ", ".join(self._tasks) or "none"
            raise ValueError(f"name is {name!r}; expected one of the tasks: {known}")
        return self._tasks[name]

    def _others(self) -> dict[str, Tensor]:
        own = {id(t) for layer in self._layers for t in (layer.scores, layer.frozen)}
        state = self._model.state_dict(keep_vars=True)
        return {key: tensor.detach() for key, tensor in state.items() if id(tensor) not in own}
