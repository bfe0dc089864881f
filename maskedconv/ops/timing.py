"""Times work on a CUDA stream without the Python code that launches it."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple, Protocol

import torch

WARM_UP = 2
TRIES = 3
# Milliseconds: longer than the launches of a few kernels, too short to notice.
LEAST_PAUSE, MOST_PAUSE = 1.0, 500.0
_CYCLES_A_MILLISECOND = 2_000_000  # for a GPU at 2 GHz; a slower one only sleeps longer


class Queue(Protocol):
    """A stream that takes work in order, and its clock."""

    def event(self) -> Any:
        """An event with ``record()``, ``query()`` and ``elapsed_time(later)`` in milliseconds."""

    def sleep(self, milliseconds: float) -> None:
        """Queues a pause of at least this length."""

    def synchronize(self) -> None:
        """Waits for everything that is queued."""


class CudaQueue:
    """The current stream of a CUDA device, which need not be the current device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def event(self) -> _Event:
        return _Event(self._device)

    def sleep(self, milliseconds: float) -> None:
        with torch.cuda.device(self._device):
            torch.cuda._sleep(int(milliseconds * _CYCLES_A_MILLISECOND))

    def synchronize(self) -> None:
        # This stream alone: on another one a collective operation may wait for another rank.
        torch.cuda.current_stream(self._device).synchronize()

    def is_capturing(self) -> bool:
        """Whether a CUDA graph is being captured, which prevents timing."""
        with torch.cuda.device(self._device):
            return torch.cuda.is_current_stream_capturing()


class _Event:
    """Recorded on the current stream of its own device."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._event = device, torch.cuda.Event(enable_timing=True)

    def record(self) -> None:
        self._event.record(torch.cuda.current_stream(self._device))

    def query(self) -> bool:
        return self._event.query()

    def elapsed_time(self, later: _Event) -> float:
        return self._event.elapsed_time(later._event)


class Times(NamedTuple):
    """Milliseconds of each repetition.

    Attributes:
        held: whether the queue was never empty, so that no time includes Python.
    """

    milliseconds: list[float]
    held: bool


def queued_times(
    run: Callable[[], object],
    queue: Queue,
    repetitions: int,
    between: Callable[[], object] = lambda: None,
    warmup: int = WARM_UP,
) -> Times:
    """Times of ``repetitions`` calls of ``run``, all queued while the device sleeps.

    Args:
        run: queues the work.
        between: queues untimed work before each repetition.
        warmup: number of calls before, at least one; the last one determines the sleep time.
    """
    seconds = 0.0
    for _ in range(warmup):
        begin = perf_counter()
        between()
        run()
        seconds = perf_counter() - begin
    pause = LEAST_PAUSE + 2e3 * repetitions * seconds
    for _ in range(TRIES):
        times = _round(run, queue, repetitions, between, min(pause, MOST_PAUSE))
        if times.held:
            break
        pause *= 4
    return times


def _round(
    run: Callable[[], object],
    queue: Queue,
    repetitions: int,
    between: Callable[[], object],
    pause: float,
) -> Times:
    awake = queue.event()
    pairs = [(queue.event(), queue.event()) for _ in range(repetitions)]
    queue.synchronize()
    queue.sleep(pause)
    awake.record()
    for start, end in pairs:
        between()
        start.record()
        run()
        end.record()
    held = not awake.query()
    queue.synchronize()
    return Times([start.elapsed_time(end) for start, end in pairs], held)
