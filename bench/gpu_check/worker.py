"""Runs the cases of one step in a separate process and appends a row for each.

It imports torch first and then waits for its cases as one line of JSON on standard input, so that
it can be started ahead. When standard input is closed, it ends with all its child processes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from bench.gpu_check import about, plan
from bench.gpu_check.record import NOT_HERE, NotHere, Record

READY = "\tready"  # printed before the first case
LOST_GPU = 3  # exit status: after a CUDA error, this process cannot use the GPU any more


def run_case(module: Any, step: str, case: str, device: Any, options: dict[str, Any]) -> Any:
    """The row of one case."""
    begin = time.perf_counter()
    row: dict[str, Any] = {"key": plan.key(step, case), "step": step, "status": "ok"}
    try:
        row |= module.run(case, device, options)
        device.queue.synchronize()
    except NotHere as reason:
        row |= {"status": NOT_HERE, "reason": str(reason)}
    except Exception as error:
        row |= {"status": "error", "error": f"{type(error).__name__}: {error}"}
        traceback.print_exc()
    row["seconds"] = round(time.perf_counter() - begin, 3)
    return row | about.describe(device.rehearsal)


def is_lost(row: dict[str, Any], device: Any) -> bool:
    """Whether the error left the GPU unusable in this process."""
    if row["status"] != "error":
        return False
    try:
        device.queue.synchronize()
    except Exception:
        return True
    return False


def _end_with_the_command() -> None:
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    arguments = parser.parse_args()
    from bench.gpu_check.device import open_device

    line = sys.stdin.readline()
    if not line:
        return 0
    threading.Thread(target=_end_with_the_command, daemon=True).start()
    request = json.loads(line)
    record, step = Record(arguments.results), request["step"]
    device = open_device(arguments.rehearse)
    module = importlib.import_module(f"{request['package']}.{step}")
    print(READY, flush=True)
    for case in request["cases"]:
        print(case, flush=True)
        row = run_case(module, step, case, device, request["options"])
        record.append(row)
        if is_lost(row, device):
            return LOST_GPU
    return 0


if __name__ == "__main__":
    # Not sys.exit: the clean-up after a lost GPU may hang.
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
