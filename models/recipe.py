"""Recipe: how a network was trained in its source. Does not import torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Settings of a full run.

    Attributes:
        epochs: length of the full run; shorter runs keep the milestones.
        milestones, gamma: the learning rate is multiplied by ``gamma`` after each of these epochs.
        warmup: epochs in which the learning rate rises to ``lr``.
        schedule: "step" uses the milestones; "cosine" decays ``lr`` to zero over ``epochs``.
        dropout: dropout probability of the run that learns all weights.
        optimizer: "sgd" or "adam", whose beta1 is the ``momentum``.
    """

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    milestones: tuple[int, ...]
    gamma: float
    nesterov: bool = False
    dropout: float = 0.0
    schedule: Literal["step", "cosine"] = "step"
    warmup: int = 0
    optimizer: Literal["sgd", "adam"] = "sgd"
