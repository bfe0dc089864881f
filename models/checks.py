"""Checks of the networks' arguments. Does not import torch."""

from __future__ import annotations

from numbers import Integral

from maskedconv.checks import check_int, check_number


def check_count(argument: str, value: object, minimum: int = 1) -> int:
    """:func:`maskedconv.checks.check_int`, which also takes NumPy's ints; returns an int."""
    if not isinstance(value, bool) and isinstance(value, Integral):
        value = int(value)
    return check_int(argument, value, minimum)


def check_width(width: object) -> None:
    """TypeError or ValueError unless ``width`` is a finite number above 0."""
    if check_number("width", width) == 0:
        raise ValueError(f"width is {width}; expected a number above 0")


def scaled(channels: int, width: float) -> int:
    """``channels`` times ``width``, rounded, at least one."""
    return max(1, round(channels * width))
