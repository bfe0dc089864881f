"""Progress within an epoch: one line on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

from maskedconv.console import duration

if TYPE_CHECKING:
    from torch import Tensor

    from maskedconv.data import Task

    Batches = Iterator[tuple[Tensor, Tensor]]

# A terminal's line is written again after this time, a file gets another line after that.
TERMINAL_SECONDS, FILE_SECONDS = 0.2, 60.0
_ERASE = "\r\x1b[K"


class EpochLine:
    """The batches of an epoch that are done, and the time that the others will take.

    On a terminal one line is written again and again. In a file, a line is added each minute, so
    that short epochs leave none.

    Args:
        clock: seconds, as ``time.monotonic``.
    """

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream, self._clock = stream or sys.stderr, clock
        self._terminal = self._stream.isatty()
        self._shown = False
        self._begin = self._last = clock()

    def start(self) -> None:
        """The first batch is about to be computed."""
        self._begin = self._last = self._clock()

    def show(self, what: str, done: int, left: int, total: int) -> None:
        """Shows that ``done`` batches since the start took the time until now, if it is due."""
        now = self._clock()
        if now - self._last < (TERMINAL_SECONDS if self._terminal else FILE_SECONDS):
            return
        self._last = now
        seconds = (now - self._begin) / done * left
        text = f"{what}: batch {total - left:,} of {total:,}, about {duration(seconds)} left"
        self._write(f"{_ERASE}{text}" if self._terminal else f"{text}\n")
        self._shown = self._terminal

    def clear(self) -> None:
        """Removes the line from a terminal."""
        if self._shown:
            self._write(_ERASE)
            self._shown = False

    def _write(self, text: str) -> None:
        # Within a batch, an error would count as one of the training.
        with suppress(OSError):
            self._stream.write(text)
            self._stream.flush()


class WatchedTask:
    """A ``Task`` that shows on ``line`` which of its batches are done; else as ``task``."""

    def __init__(self, task: Task, line: EpochLine) -> None:
        self._task, self._line = task, line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def train_batches(
        self, batch_size: int, seed: int, epoch: int, first_batch: int = 0
    ) -> Batches:
        """The batches of the task."""
        from maskedconv.data.batches import batch_bounds

        task = self._task
        total = len(batch_bounds(task.train_size, batch_size, task.share.count)) - 1
        batches = self._task.train_batches(batch_size, seed, epoch, first_batch)
        return self._watched(batches, f"epoch {epoch}", total, first_batch)

    def test_batches(self, batch_size: int) -> Batches:
        """The batches of the task."""
        total = -(-self._task.test_size // batch_size)
        return self._watched(self._task.test_batches(batch_size), "evaluation", total, 0)

    def _watched(self, batches: Batches, what: str, total: int, first: int) -> Batches:
        self._line.start()
        for index, batch in enumerate(batches, start=1):
            yield batch
            # The caller asks for the next batch when this one is computed.
            self._line.show(what, index, total - first - index, total)


def watched(task: Task, line: EpochLine) -> Task:
    """``task`` with its progress on ``line``."""
    return cast("Task", WatchedTask(task, line))
