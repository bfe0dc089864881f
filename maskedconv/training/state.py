"""The complete training state, from batch to batch and in checkpoints."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from maskedconv.training.history import Epoch, History
from maskedconv.training.running_statistics import running_statistics

# The attributes of a position that have a state_dict.
_STATEFUL = ("model", "optimizer", "scheduler")


class Position:
    """The complete training state: everything that affects the rest of the training.

    Attributes:
        device: the device of the model and the batches.
        history: the finished epochs.
        batch: number of finished batches of the current epoch; ``sums`` are over these.
        steps: number of finished batches of all epochs.
    """

    def __init__(
        self, model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler, device: torch.device
    ) -> None:
        self.model, self.optimizer, self.scheduler = model, optimizer, scheduler
        self.history = History()
        self.device = device
        self.steps = 0
        self._begin_epoch()

    @property
    def seconds(self) -> float:
        """Wall time of the current epoch so far."""
        return self._seconds_before + time.perf_counter() - self._start

    def end_epoch(self, result: Epoch) -> None:
        """Adds ``result`` to the history; the next epoch begins."""
        self.history.epochs.append(result)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self.batch, self.sums = 0, Sums(self.device)
        self._seconds_before, self._start = 0.0, time.perf_counter()

    def state(self) -> dict[str, Any]:
        """The state as tensors and JSON values; waits for the device."""
        return {
            **{name: getattr(self, name).state_dict() for name in _STATEFUL},
            "history": [asdict(epoch) for epoch in self.history.epochs],
            "batch": self.batch,
            "steps": self.steps,
            "seconds": self.seconds,
            **self._own_state(),
        }

    def state_of_other(self) -> dict[str, Any]:
        """The state that differs between the processes of a training: tensors and JSON values.

        Together with the :meth:`state` of the first process, it restores another one.
        """
        statistics = running_statistics(self.model)
        return {
            **self._own_state(),
            "statistics": {name: value.cpu() for name, value in statistics.items()},
        }

    def _own_state(self) -> dict[str, Any]:
        # Order and augmentation have generators of their own; dropout draws from the global ones.
        cuda = self.device.type == "cuda"
        return {
            "sums": vars(self.sums),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state(self.device) if cuda else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores the result of :meth:`state`, updated by :meth:`state_of_other` or not."""
        for name in _STATEFUL:
            getattr(self, name).load_state_dict(state[name])
        self.history.epochs[:] = [Epoch(**epoch) for epoch in state["history"]]
        self.batch, self._seconds_before = state["batch"], state["seconds"]
        # States of earlier versions lack it; nothing depended on it then.
        self.steps = state.get("steps", 0)
        statistics = running_statistics(self.model)
        for name, value in state.get("statistics", {}).items():
            statistics[name].copy_(value)
        # States of earlier versions weighted losses by examples.
        sums = {"terms": state["sums"]["count"], **state["sums"]}
        for name, value in sums.items():
            moved = value.to(self.device) if isinstance(value, Tensor) else value
            setattr(self.sums, name, moved)
        torch.set_rng_state(state["random"])
        if state["random_cuda"] is not None:
            torch.cuda.set_rng_state(state["random_cuda"], self.device)


class Sums:
    """Sums of loss and correct predictions, on the device so that no step waits for the host."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), device=device, dtype=torch.float64)
        self.correct = torch.zeros((), device=device, dtype=torch.int64)
        self.count: float = 0
        self.terms: Tensor | float = 0

    def add(self, loss: Tensor, correct: Tensor, count: float, terms: Tensor | float) -> None:
        """Adds one batch: mean ``loss`` [] of ``terms``, number ``correct`` [] of its ``count``
        examples.
        """
        self.loss += loss * terms
        self.correct += correct
        self.count += count
        self.terms = self.terms + terms

    def values(self) -> Tensor:
        """Sum of the losses, correct predictions, numbers of examples and terms, float64 [4]."""
        values = [self.loss.item(), self.correct.item(), self.count, float(self.terms)]
        return torch.tensor(values, dtype=torch.float64)


def means(sums: Tensor) -> tuple[float, float]:
    """Mean loss, and top-1 in percent, of :meth:`Sums.values`."""
    loss, correct, count, terms = sums.tolist()
    return loss / terms, 100.0 * correct / count
