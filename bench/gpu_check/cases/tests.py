"""Step 7: the tests that need a GPU, in several processes if pytest-xdist is installed.

If a test loses the GPU, new processes run the tests that have not run. A case is a file and the
selection of its tests by pytest's option ``-k``.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.commit import ROOT
from bench.gpu_check.device import Device
from bench.gpu_check.pytest_rows import LOST, VARIABLE
from bench.gpu_check.record import Record

WORKERS = 4


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    record, status = Record(Path(options["results"])), "ok"
    while True:
        lost = _losses(record)
        done = _pytest(case, device, options)
        # Exit status 5: no tests were left to run.
        status = status if done.returncode in (0, 5) else "error"
        if _losses(record) == lost:
            break
    lines = done.stdout.strip().splitlines() or [""]
    return {"status": status, "summary": lines[-1]}


def _losses(record: Record) -> int:
    return sum(LOST in row for row in record.rows())


def _pytest(case: str, device: Device, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    file, _, selected = case.partition(" | ")
    command = [
        sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
        "-p", "bench.gpu_check.pytest_rows", file, *(["-k", selected] if selected else []),
    ]  # fmt: skip
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(WORKERS)]
    rows = f"{int(device.rehearsal)}{options['results']}"
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {VARIABLE: rows, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr, file=sys.stderr)
    return done
