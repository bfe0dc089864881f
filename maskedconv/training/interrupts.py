"""Ctrl-C and SIGTERM during runs: the first saves the runs, the second stops at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from maskedconv.console import is_muted

SAVING = "interrupted: saving the runs in progress (interrupt again to stop at once)"
_Handler = Callable[[int, Any], None]
# Global, because signals are delivered to the process.
_noted = False


def requested() -> bool:
    """Whether a signal within :func:`noted` requested to save and stop."""
    return _noted


@contextmanager
def noted() -> Iterator[None]:
    """Context in which the first signal only sets :func:`requested`; the second interrupts.

    Leaving the context after a signal raises KeyboardInterrupt. A signal that the process ignores
    stays ignored. Does nothing outside the main thread, which receives no signals.
    """
    global _noted
    _noted = False
    try:
        with _handled(_note):
            yield
    finally:
        again, _noted = _noted, False
    if again:
        raise KeyboardInterrupt


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Context in which SIGTERM raises KeyboardInterrupt, as SIGINT does."""
    with _handled(_interrupt, (signal.SIGTERM,)):
        yield


@contextmanager
def _handled(
    handler: _Handler, numbers: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM)
) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in numbers}
    replaced = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in replaced:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in replaced.items():
            signal.signal(number, old)


def _note(number: int, frame: Any) -> None:
    global _noted
    if _noted:
        raise KeyboardInterrupt
    _noted = True
    # Worker processes leave the message to their parent. os.write, because a handler may run within
    # another print.
    if multiprocessing.parent_process() is None and not is_muted():
        os.write(2, f"{SAVING}\n".encode())


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt
