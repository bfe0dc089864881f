"""Kills a process in the middle of a run, and compares the rows of two folders."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from maskedconv.runs import Store

# Fields that are of the process and its time, not of the result.
_OF_THE_PROCESS = ("started", "seconds", "spans", "peak_memory_bytes")


def kill_one_midway(out: Path, after: int, seconds: float = 300.0) -> str:
    """Kills, by SIGKILL, a process whose run in ``out`` has a checkpoint; returns the run's key.

    Args:
        after: number of finished runs before.

    Raises:
        TimeoutError: no such run was met in ``seconds``.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if len(Store(out).load().rows) >= after:
            for checkpoint in (out / ".checkpoints").glob("*.pt"):
                if _kill(out, checkpoint.stem):
                    return checkpoint.stem
        time.sleep(0.01)
    raise TimeoutError(f"no run in {out} was killed in {seconds:g} s")


def results(out: Path) -> dict[str, dict[str, Any]]:
    """The rows by key, without times and memory of the process."""
    rows = Store(out).load().rows
    found = {
        key: {name: value for name, value in row.items() if name not in _OF_THE_PROCESS}
        for key, row in rows.items()
    }
    for row in found.values():
        row["history"] = [
            {name: value for name, value in epoch.items() if name != "seconds"}
            for epoch in row["history"]
        ]
    return found


def _kill(out: Path, key: str) -> bool:
    """Kills the process that holds the run; whether it died in the middle of it."""
    lock = str((out / ".claims" / f"{key}.lock").resolve())
    holder = next((pid for pid in _processes() if lock in _open_files(pid)), None)
    if holder is None:
        return False
    os.kill(holder, signal.SIGKILL)
    while lock in _open_files(holder):
        time.sleep(0.001)
    return Store(out).load().finished(key) is None


def _processes() -> list[int]:
    found = (int(name) for name in os.listdir("/proc") if name.isdecimal())
    return [pid for pid in found if pid != os.getpid()]


def _open_files(pid: int) -> set[str]:
    try:
        return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return set()
