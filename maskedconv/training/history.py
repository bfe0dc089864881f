"""The results of a training's epochs, and the error if it diverges. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypedDict


@dataclass(frozen=True)
class Epoch:
    """Result of one epoch: mean losses, top-1 in percent, learning rate and wall time.

    ``train_loss`` and ``train_top1`` are measured during training, before each update.
    ``seconds`` covers training and evaluation.
    """

    epoch: int
    train_loss: float
    train_top1: float
    test_loss: float
    test_top1: float
    seconds: float
    lr: float


class Span(TypedDict):
    """The part of one process in a run: its start (UTC, ISO 8601), and seconds from then on."""

    started: str
    seconds: float


@dataclass
class History:
    """The epochs of a run, in order; the first is epoch 1."""

    epochs: list[Epoch] = field(default_factory=list)

    @property
    def last_top1(self) -> float | None:
        """Top-1 on the test set after the last epoch, in percent; None before the first."""
        return self.epochs[-1].test_top1 if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The first epoch with the best top-1 on the test set, as the paper reports it."""
        return max(self.epochs, key=lambda item: item.test_top1, default=None)


class Diverged(ArithmeticError):
    """A loss or a value of the network was not finite.

    Attributes:
        epoch: the epoch, counted from 1.
        history: the epochs before it.
    """

    def __init__(self, what: str, epoch: int, history: History) -> None:
        super().__init__(f"{what} is not finite in epoch {epoch}")
        self.epoch = epoch
        self.history = history
