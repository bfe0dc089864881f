"""Step 7: the tests that need a GPU, in several processes if pytest-xdist is installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from typing import Any

from bench.gpu_check import about
from bench.gpu_check.device import Device
from bench.gpu_check.pytest_rows import VARIABLE

WORKERS = 4


def run(case: str, device: Device, options: dict[str, Any]) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider",
        "-p", "bench.gpu_check.pytest_rows", case,
    ]  # fmt: skip
    if importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(WORKERS)]
    rows = f"{int(device.rehearsal)}{options['results']}"
    paths = os.pathsep.join([str(about.ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=about.ROOT, env=os.environ | {VARIABLE: rows, "PYTHONPATH": paths},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr, file=sys.stderr)
    lines = done.stdout.strip().splitlines() or [""]
    # Exit status 5: no tests were left to run.
    return {"status": "ok" if done.returncode in (0, 5) else "error", "summary": lines[-1]}
