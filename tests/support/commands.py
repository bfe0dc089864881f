"""Calls the commands in this process or another, for their tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import typer
from typer.testing import CliRunner

from maskedconv.runs import Store, estimate
from maskedconv.runs.timing import Pace

SMALL = ("table1", "--epochs", "1", "--subset", "5", "--no-report")
SMALL_RUNS = 12


def call(module, *arguments):
    """Runs the command here; returns typer's result."""
    app = typer.Typer()
    app.command()(module.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def start(*arguments, before_start=None):
    """Starts ``reproduce`` in another process and calls ``before_start`` in it."""

    def prepare():
        # Tests in the background of a script inherit an ignored Ctrl-C.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if before_start is not None:
            before_start()

    command = [sys.executable, "-m", "maskedconv.reproduce", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        preexec_fn=prepare,
    )  # fmt: skip


def wait_until(condition, process=None, seconds=300):
    """Waits until ``condition()`` holds.

    The test fails if ``process`` ends before, or after ``seconds``.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


def wait_for_rows(out, count, process):
    """Waits until ``process`` has finished this number of runs."""
    wait_until(lambda: len(Store(out).load().rows) >= count, process)


def children_of(process):
    """The ids of the processes that a process has started, by any of its threads."""
    lists = Path(f"/proc/{process.pid}/task").glob("*/children")
    return [int(child) for children in lists for child in children.read_text().split()]


def is_running(pid):
    """Whether a process has not ended; one that nobody has waited for has."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def time_nothing(monkeypatch):
    """Makes estimates assume the same speed for every network instead of timing it."""
    monkeypatch.setattr(
        estimate, "_measure_all", lambda jobs, workers: [Pace(1.0, 1e-3, 1e-3) for _ in jobs]
    )


def keys(out):
    """The keys of the rows, in order."""
    return [json.loads(line)["key"] for line in (out / "results.jsonl").read_text().splitlines()]
