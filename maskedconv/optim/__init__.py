"""Optimizers and learning-rate schedules by name, and YellowFin.

The names do not need torch; the other attributes import it on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

OPTIMIZERS = ("sgd", "adam", "yellowfin")
# Their steps on CUDA can be captured in a CUDA graph; only the settings are host values.
CAPTURABLE = ("sgd", "adam")
SCHEDULES = ("step", "cosine")

_HOMES = {"YellowFin": "yellowfin", "make_optimizer": "factory", "make_scheduler": "factory"}

__all__ = ["OPTIMIZERS", "SCHEDULES", "YellowFin", "make_optimizer", "make_scheduler"]

if TYPE_CHECKING:
    from maskedconv.optim.factory import make_optimizer, make_scheduler
    from maskedconv.optim.yellowfin import YellowFin


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
