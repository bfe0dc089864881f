"""Starts the workers, enforces their time limits, and records the status of each case."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.commit import ROOT
from bench.gpu_check import about, plan
from bench.gpu_check.plan import Step
from bench.gpu_check.record import CUT_OFF, TIMED_OUT, Record
from bench.gpu_check.worker import READY

POLL = 0.02
START_SECONDS = 90.0  # to import torch and open the GPU


class Worker:
    """One process of ``bench.gpu_check.worker``, which imports torch before it gets its cases."""

    def __init__(self, results: Path, rehearse: bool, log: Path) -> None:
        command = [sys.executable, "-m", "bench.gpu_check.worker", "--results", str(results)]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [*command, "--rehearse"] if rehearse else command,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                cwd=ROOT, start_new_session=True,
            )  # fmt: skip
        self.case, self.killed = "", CUT_OFF
        self.ready = self.since = math.inf
        self._reader = threading.Thread(target=self._follow, daemon=True)

    def begin(self, step: str, cases: list[str], options: dict[str, Any], package: str) -> None:
        """Sends the cases to the process; their code is in the module ``package.step``."""
        assert self._process.stdin is not None
        request = {"step": step, "cases": cases, "options": options, "package": package}
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        self._reader.start()

    def _follow(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.since = time.monotonic()
            if line == READY + "\n":
                self.ready = self.since
            else:
                self.case = line.rstrip("\n")

    def wait(
        self, seconds: float, case_seconds: float, deadline: float, first: str | None = None
    ) -> int | None:
        """The exit status, or None if the worker or one of its cases took too long and was killed.

        The time starts when the worker is ready for its first case. ``killed`` then tells whether
        the case has passed its own limit. That of ``first`` is at most ``seconds``.
        """
        start_until = time.monotonic() + START_SECONDS
        while (code := self._process.poll()) is None:
            step_until = start_until if self.ready == math.inf else self.ready + seconds
            case_until = self.since + case_seconds
            if self.case == first:
                case_until = min(case_until, step_until)
            if time.monotonic() > min(step_until, case_until, deadline):
                self.killed = TIMED_OUT if case_until <= min(step_until, deadline) else CUT_OFF
                self.end()
                self._reader.join(1)
                return None
            time.sleep(POLL)
        self._reader.join(1)
        self.end()
        return code

    def end(self) -> None:
        """Kills the worker and its child processes."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        # One that is stuck in the driver may not end.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(5)


class Runner:
    """Runs steps; always starts one spare worker ahead."""

    def __init__(self, folder: Path, rehearse: bool, options: dict[str, Any]) -> None:
        self.record = Record(folder / "results.jsonl")
        self.rehearse, self.options = rehearse, options
        self.package = "bench.gpu_check.cases"
        self._log = folder / "log.txt"
        self._lock = threading.Lock()
        self._spare: Worker | None = None
        self._running: list[Worker] = []
        self._closed = False

    def answered(self) -> set[str]:
        """Keys of the answered cases."""
        return self.record.answered(about.describe(self.rehearse))

    def run(self, step: Step, cases: list[str], deadline: float) -> None:
        """Runs the cases within the step's time; their rows are on disk when it returns."""
        if step.at_once == 1:
            self._run(step, cases, deadline)
            return
        shares = [cases[first :: step.at_once] for first in range(step.at_once)]
        with ThreadPoolExecutor(step.at_once) as threads:
            running = [
                threads.submit(self._run, step, share, deadline) for share in shares if share
            ]
            try:
                for done in running:
                    done.result()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Ends every worker."""
        with self._lock:
            self._closed = True
            for worker in (*self._running, *filter(None, [self._spare])):
                worker.end()
            self._spare = None

    def _take(self) -> Worker:
        with self._lock:
            worker = self._spare or self._start()
            self._spare = self._start()
            self._running.append(worker)
            return worker

    def _start(self) -> Worker:
        return Worker(self.record.path, self.rehearse, self._log)

    def _run(self, step: Step, cases: list[str], deadline: float) -> None:
        seconds = step.seconds
        while cases and seconds > 0 and time.monotonic() < deadline and not self._closed:
            worker = self._take()
            worker.begin(step.name, cases, self.options, self.package)
            first = cases[0] if seconds == step.seconds else None
            code = worker.wait(seconds, step.case_seconds, deadline, first)
            if code == 0 or self._closed:
                return
            seconds -= max(0.0, time.monotonic() - worker.ready)
            cases = self._after_a_failure(step, cases, worker, code)

    def _after_a_failure(
        self, step: Step, cases: list[str], worker: Worker, code: int | None
    ) -> list[str]:
        """Records the status of the failed case; returns the remaining cases.

        Behind a case that hangs, others of the same kernel come last, as they may hang too.
        """
        if worker.case not in cases:  # it did not reach its first case
            if code is not None:
                self._append(step, cases[0], "crashed", f"no start, exit status {code}")
            return []
        if plan.key(step.name, worker.case) not in self.answered():
            status = worker.killed if code is None else "crashed"
            seconds = time.monotonic() - worker.since
            self._append(step, worker.case, status, f"exit status {code} after {seconds:.1f} s")
        remaining = cases[cases.index(worker.case) + 1 :]
        if code is None and worker.killed == TIMED_OUT:
            kernel = plan.candidate(worker.case)
            remaining.sort(key=lambda case: plan.candidate(case) == kernel)
        return remaining

    def _append(self, step: Step, case: str, status: str, error: str) -> None:
        row = {"key": plan.key(step.name, case), "step": step.name, "status": status}
        self.record.append(row | {"error": error} | about.describe(self.rehearse))
