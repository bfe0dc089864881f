"""The line of progress within an epoch, on a terminal and in a file."""

from __future__ import annotations

import errno
import io

import pytest

from maskedconv.cli.batch_progress import EpochLine, watched
from maskedconv.data import load
from maskedconv.data.share import Share


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that pass at each call."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def written(stream, step):
    """Output of an epoch of digits in 12 batches of 128, and its line."""
    line = EpochLine(stream, Clock(step))
    task = watched(load("digits"), line)
    batches = sum(1 for _ in task.train_batches(128, 0, 3, 1))
    assert batches == -(-task.train_size // 128) - 1
    return stream.getvalue(), line


def test_a_terminal_has_one_line_that_is_removed():
    stream = Terminal()
    text, line = written(stream, 1.0)
    lines = text.split("\r\x1b[K")[1:]
    total = -(-load("digits").train_size // 128)
    assert lines[0].startswith(f"epoch 3: batch 2 of {total}, about ")
    assert lines[-1].startswith(f"epoch 3: batch {total} of {total}, about ")
    assert "\n" not in text
    line.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


@pytest.mark.parametrize(("step", "some"), [(1.0, False), (70.0, True)])
def test_a_file_has_a_line_a_minute_and_none_for_short_epochs(step, some):
    text, _ = written(io.StringIO(), step)
    assert ("batch" in text) is some
    assert "\r" not in text


def test_a_watched_task_is_the_task():
    digits = load("digits")
    task = watched(digits, EpochLine(io.StringIO()))
    assert (task.classes, task.train_size) == (digits.classes, digits.train_size)
    assert sum(len(labels) for _, labels in task.test_batches(50)) == digits.test_size


def test_the_total_is_that_of_all_processes_that_share_the_batches():
    stream, digits = Terminal(), load("digits")
    # Two images remain, which join the batch before if two processes share them.
    batch_size = next(size for size in range(100, 800) if digits.train_size % size == 2)
    task = watched(digits.shared(Share(0, 2)), EpochLine(stream, Clock(1.0)))
    batches = sum(1 for _ in task.train_batches(batch_size, 0, 1))
    assert batches == digits.train_size // batch_size
    assert f"batch {batches} of {batches}," in stream.getvalue()


class Closed(Terminal):
    def write(self, text):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


def test_a_line_that_cannot_be_written_stops_no_training():
    text, line = written(Closed(), 1.0)
    line.clear()
    assert text == ""
