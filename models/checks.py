"""Checks of the networks' arguments. Does not import torch."""

from __future__ import annotations

import math
from numbers import Integral, Real


def check_count(argument: str, value: object, minimum: int = 1) -> int:
    """Returns ``value``; TypeError unless it is an int, ValueError if it is below ``minimum``."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(
            f"{argument} is {value!r} ({type(value).__name__}); expected an int >= {minimum}"
        )
    if value < minimum:
        raise ValueError(f"{argument} is {value}; expected an int >= {minimum}")
    return int(value)


def check_dropout(dropout: object) -> float:
    """Returns ``dropout``; TypeError or ValueError unless it is a probability in [0, 1)."""
    if isinstance(dropout, bool) or not isinstance(dropout, Real):
        raise TypeError(
            f"dropout is {dropout!r} ({type(dropout).__name__}); expected a number in [0, 1)"
        )
    if not 0 <= float(dropout) < 1:
        raise ValueError(f"dropout is {dropout}; expected a number in [0, 1)")
    return float(dropout)


def check_width(width: object) -> float:
    """Returns ``width``; TypeError or ValueError unless it is a finite number above 0."""
    if isinstance(width, bool) or not isinstance(width, Real):
        raise TypeError(f"width is {width!r} ({type(width).__name__}); expected a number above 0")
    if not math.isfinite(width) or width <= 0:
        raise ValueError(f"width is {width}; expected a finite number above 0")
    return float(width)


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded, at least one."""
    return max(1, round(channels * width))


def check_flag(argument: str, value: object) -> bool:
    """Returns ``value``; TypeError unless it is a bool."""
    if not isinstance(value, bool):
        raise TypeError(f"{argument} is {value!r} ({type(value).__name__}); expected a bool")
    return value
