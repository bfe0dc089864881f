"""The training loop, its state, checkpoints and results. Independent of runs and papers.

Importing the package does not import torch; each name is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "TrainingConfig": "config",
    "Diverged": "history",
    "Epoch": "history",
    "History": "history",
    "evaluate": "evaluation",
    "predict": "evaluation",
    "train": "loop",
}

__all__ = ["Diverged", "Epoch", "History", "TrainingConfig", "evaluate", "predict", "train"]

if TYPE_CHECKING:
    from maskedconv.training.config import TrainingConfig
    from maskedconv.training.evaluation import evaluate, predict
    from maskedconv.training.history import Diverged, Epoch, History
    from maskedconv.training.loop import train


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
