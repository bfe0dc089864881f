"""What a row of results says of how training went."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from maskedconv.training.history import History


def results(history: History) -> dict[str, Any]:
    """``history`` and its last and best top-1 on the test set, in percent, as JSON values."""
    epochs = epochs_of(history)
    best = None if history.best is None else epochs[history.best.epoch - 1]
    return {
        "history": epochs,
        "last_top1": epochs[-1]["test_top1"] if epochs else None,
        "best_top1": None if best is None else best["test_top1"],
        "best_epoch": None if best is None else best["epoch"],
    }


def epochs_of(history: History) -> list[dict[str, Any]]:
    """The epochs, with six digits after the point: far below what a repetition would reproduce."""
    return [
        {
            name: round(value, 6) if isinstance(value, float) and math.isfinite(value) else value
            for name, value in dataclasses.asdict(epoch).items()
        }
        for epoch in history.epochs
    ]
