"""Parallel runs: their schedule and their results."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from maskedconv.runs.config import RunConfig
from maskedconv.runs.images import DataKey
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import POLL_SECONDS, Observer, not_run
from maskedconv.runs.store import Store, StoreError
from maskedconv.runs.workers import Pool, WorkerConfig, WorkerError, saved
from maskedconv.training.interrupts import sigterm_interrupts

if TYPE_CHECKING:
    from maskedconv.data import Task

MOST_WORKERS = 8
# A run that ends its process this often is marked as failed.
MOST_DEATHS = 2


def parse_parallel(text: str) -> int | None:
    """``"3"`` as 3, ``"auto"`` as None; ValueError for anything else."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"parallel is {text!r}; expected auto or a number of runs, at least 1")
    return int(text)


def divide_cores(
    parallel: int | None, threads: int | None, device: str, cores: int
) -> tuple[int, int | None]:
    """The number of parallel runs, and the threads of each (None: torch's default).

    Without ``parallel``, runs with a given number of ``threads`` use all cores of a CPU in
    parallel; all others run one at a time. Without ``threads``, parallel runs divide the cores.
    """
    if parallel is None:
        parallel = 1
        if device == "cpu" and threads is not None:
            parallel = min(max(1, cores // threads), MOST_WORKERS)
    if threads is None and parallel > 1:
        threads = max(1, cores // parallel)
    return parallel, threads


def count_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_parallel(
    configs: Iterable[RunConfig],
    datasets: dict[DataKey, Task],
    observer: Observer,
    worker_config: WorkerConfig,
    workers: int,
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, Row]:
    """As ``sequential.run_all``, with up to ``workers`` parallel runs in separate processes.

    A run whose process dies is given to another process. If that one dies too, the run fails. On
    the first interrupt (Ctrl-C or SIGTERM) the processes save their runs; the second one ends them
    at once.

    Raises:
        StoreError: a row, a checkpoint or a file of weights cannot be written.
        WorkerError: processes do not start, or the images cannot be passed to them.
    """
    schedule = Schedule({config.key: config for config in configs}, poll_seconds)
    if not schedule.pending:
        return {}
    with sigterm_interrupts(), saved(datasets) as images, Pool(worker_config, images) as pool:
        finish_all(schedule, pool, workers, observer, Store(worker_config.out))
    return schedule.rows


class Runner(Protocol):
    """Executes several runs at once and reports on them, as ``workers.Pool`` does."""

    @property
    def busy(self) -> Mapping[Any, RunConfig]: ...
    def give(self, config: RunConfig) -> None: ...
    def events(self, timeout: float | None) -> Iterable[tuple[RunConfig, Any]]: ...


def finish_all(
    schedule: Schedule, runner: Runner, at_once: int, observer: Observer, store: Store
) -> None:
    """Gives the runs of the schedule to ``runner``, up to ``at_once`` of them, until all are done.

    Raises:
        StoreError, WorkerError: as :func:`run_parallel`.
    """
    while schedule.pending:
        while len(runner.busy) < at_once and (config := schedule.next()):
            runner.give(config)
        if not runner.busy:
            observer.waiting(len(schedule.pending))
            time.sleep(schedule.poll_seconds)
            continue
        for config, event in runner.events(schedule.poll_seconds if schedule.deferred else None):
            _take(config, event, schedule, observer, store)


def _take(
    config: RunConfig, event: Any, schedule: Schedule, observer: Observer, store: Store
) -> None:
    match event:
        case ("started",):
            observer.started(config)
        case ("epoch", epoch):
            observer.epoch(config, epoch)
        case ("row", None):
            schedule.defer(config)
        case ("row", row):
            schedule.finish(config, row)
            observer.finished(config, row)
        case ("store", text):
            raise StoreError(text)
        case ("unstarted", end):
            schedule.unstarted(config, end)
        case ("died", end) if schedule.died(config):
            row = not_run(config, f"its process ended twice, the last time {end}", "WorkerDied")
            store.append(row)
            schedule.finish(config, row)
            observer.finished(config, row)


class Schedule:
    """Chooses the next run: in order, and after the run that it starts from."""

    def __init__(self, pending: dict[str, RunConfig], poll_seconds: float) -> None:
        self.pending = pending
        self.rows: dict[str, Row] = {}
        # Runs in progress in another command, and when to try them again.
        self.deferred: dict[str, float] = {}
        self._given: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._unstarted = 0
        self.poll_seconds = poll_seconds

    def next(self) -> RunConfig | None:
        """Takes the next run; None if there is none now."""
        now = time.monotonic()
        for key, config in self.pending.items():
            waits = config.start in self.pending or self.deferred.get(key, now) > now
            if key not in self._given and not waits:
                self._given.add(key)
                self.deferred.pop(key, None)
                return config
        return None

    def defer(self, config: RunConfig) -> None:
        """Postpones a run that another command is doing."""
        self._given.remove(config.key)
        self.deferred[config.key] = time.monotonic() + self.poll_seconds

    def finish(self, config: RunConfig, row: Row) -> None:
        """Records the row of a finished run."""
        del self.pending[config.key]
        self.rows[config.key] = row

    def died(self, config: RunConfig) -> bool:
        """Reschedules a run whose process died; True if it has used up its attempts."""
        self._deaths[config.key] = self._deaths.get(config.key, 0) + 1
        if self._deaths[config.key] == MOST_DEATHS:
            return True
        self._given.remove(config.key)
        return False

    def unstarted(self, config: RunConfig, end: str) -> None:
        """Reschedules a run whose process died at startup, which is not the run's fault."""
        self._given.remove(config.key)
        self._unstarted += 1
        if self._unstarted == MOST_DEATHS:
            raise WorkerError(
                f"worker processes do not start: one ended {end} (its output is above); "
                "--parallel 1 needs none"
            )
