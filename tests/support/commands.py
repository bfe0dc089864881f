"""Calls the commands in this process or another, for their tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

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


def wait_for_rows(out, count, process):
    """Waits until ``process`` has finished this number of runs."""
    end = time.monotonic() + 300
    while len(Store(out).load().rows) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)


def time_nothing(monkeypatch):
    """Makes estimates assume the same speed for every network instead of timing it."""
    monkeypatch.setattr(
        estimate, "_measure_all", lambda jobs, workers: [Pace(1.0, 1e-3, 1e-3) for _ in jobs]
    )


def keys(out):
    """The keys of the rows, in order."""
    return [json.loads(line)["key"] for line in (out / "results.jsonl").read_text().splitlines()]
