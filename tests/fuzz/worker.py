"""The process that runs cases. A case that ends its process must not end the fuzzer."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tests.fuzz.cases import Case, draw

MOST_FAILURES = 10
PLAIN_TRIES, PLAIN_REPETITIONS = 3, 50


@dataclass(frozen=True)
class Budget:
    """The limits: a time of ``time.monotonic``, a number of cases, a number of failures."""

    end: float
    cases: int | None = None

    def spent(self, done: int, failures: int) -> bool:
        """Whether the fuzzer is to stop."""
        enough = self.cases is not None and done >= self.cases
        return enough or time.monotonic() >= self.end or failures >= MOST_FAILURES


def run(seed: int, threads: int, budget: Budget) -> tuple[int, int]:
    """Runs cases until ``budget`` is spent; prints those that fail; returns (done, failed)."""
    context = multiprocessing.get_context("spawn")
    done, failed = context.Value("q", 0), context.Value("q", 0)
    while not budget.spent(done.value, failed.value):
        worker = context.Process(target=_work, args=(seed, threads, budget, done, failed))
        worker.start()
        worker.join()
        if worker.exitcode:
            case = draw(seed, done.value)
            print(f"# the process ended with {worker.exitcode}\n{case.script()}\n", flush=True)
            if _plain_modules_end_a_process(case, threads):
                print("# plain modules in channels_last end it as well\n", flush=True)
            else:
                failed.value += 1
            done.value += 1
    return done.value, failed.value


def _plain_modules_end_a_process(case: Case, threads: int) -> bool:
    """Repeated, because a memory error is not always visible."""
    context = multiprocessing.get_context("spawn")
    for _ in range(PLAIN_TRIES):
        process = context.Process(target=_work_plain, args=(case, threads))
        process.start()
        process.join()
        if process.exitcode:
            return True
    return False


def _work_plain(case: Case, threads: int) -> None:
    import torch

    from tests.fuzz.check import run_plain_in_channels_last

    torch.set_num_threads(threads)
    with suppress(Exception):  # only the end of the process counts
        for _ in range(PLAIN_REPETITIONS):
            run_plain_in_channels_last(case)


def _work(seed: int, threads: int, budget: Budget, done: Any, failed: Any) -> None:
    import torch

    from tests.fuzz.check import check
    from tests.fuzz.shrink import shrink

    torch.set_num_threads(threads)
    while not budget.spent(done.value, failed.value):
        case = draw(seed, done.value)
        if check(case):
            case = shrink(case, lambda plainer: bool(check(plainer)))
            print(f"# {check(case)}\n{case.script()}\n", flush=True)
            failed.value += 1
        done.value += 1
