"""Parallel runs of the command: Ctrl-C and killed processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from commands import (
    SMALL,
    SMALL_RUNS,
    children_of,
    is_running,
    keys,
    start,
    wait_for_rows,
    wait_until,
)
from report_samples import preset_of

from maskedconv.papers import ITEMS
from maskedconv.runs import Store

TWO = (*SMALL, "--parallel", "2", "--threads", "1")
RUNS = ITEMS["table1"].runs(preset_of("quick", epochs=40, subset=5))


def workers_of(process):
    """The worker processes of a command."""
    return [
        child
        for child in children_of(process)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def test_interrupt_of_the_terminal_ends_every_process(tmp_path):
    # Ctrl-C goes to all processes of the terminal's group.
    process = start(*TWO, "--epochs", "40", "--out", tmp_path, before_start=os.setsid)
    wait_for_rows(tmp_path, 1, process)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    kept = keys(tmp_path)
    assert f"interrupted: {len(kept)} of {SMALL_RUNS} runs are finished" in said
    assert len(kept) < SMALL_RUNS
    for config in RUNS:
        with Store(tmp_path).claim(config.key) as mine:
            assert mine


def test_runs_of_a_killed_process_are_done_by_another(tmp_path):
    process = start(*TWO, "--epochs", "5", "--out", tmp_path)
    wait_for_rows(tmp_path, 1, process)
    os.kill(workers_of(process)[0], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert len(keys(tmp_path)) == len(set(keys(tmp_path))) == SMALL_RUNS
    assert {row["status"] for row in Store(tmp_path).load().rows.values()} == {"done"}


def test_processes_end_with_a_killed_command(tmp_path):
    process = start(*TWO, "--epochs", "5", "--out", tmp_path)
    wait_for_rows(tmp_path, 1, process)
    workers = workers_of(process)
    assert workers
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(is_running, workers)))
    assert {row["status"] for row in Store(tmp_path).load().rows.values()} == {"done"}
