"""Text for people: lines on stderr, and durations. Free of torch."""

from __future__ import annotations

import sys

# Global, as stderr is the process's.
_muted = False


def say(text: str, *, muted: bool | None = None) -> None:
    """Prints one line on stderr; stdout belongs to results.

    Args:
        muted: whether nothing is printed; by default as :func:`mute` has it.
    """
    if not (_muted if muted is None else muted):
        print(text, file=sys.stderr, flush=True)


def mute() -> None:
    """Makes :func:`say` print nothing: another process of the same command says it."""
    global _muted
    _muted = True


def is_muted() -> bool:
    """Whether :func:`mute` was called."""
    return _muted


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
