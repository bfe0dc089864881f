"""Text for people: lines on stderr, and durations. Free of torch."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """Prints one line on stderr; stdout belongs to results."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float, *, rough: bool = False) -> str:
    """``seconds`` for people, such as ``1 h 05 min``, ``3 min 20 s`` or ``4.2 s``.

    ``rough`` leaves out tenths of a second, and seconds beside minutes.
    """
    if rough:
        return _rough_duration(seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def _rough_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
