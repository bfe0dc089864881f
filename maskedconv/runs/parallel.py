"""Several runs at once: which of them is next, and what becomes of each."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from maskedconv.runs.config import RunConfig
from maskedconv.runs.images import DataKey
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import POLL_SECONDS, Observer, not_run
from maskedconv.runs.store import Store, StoreError
from maskedconv.runs.workers import Pool, WorkerConfig, WorkerError, saved
from maskedconv.training.interrupts import sigterm_interrupts

if TYPE_CHECKING:
    from maskedconv.data import Dataset

MOST_WORKERS = 8
# A run that ends its process so often is at fault itself.
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
    """Decides how many runs go at once, and the threads of each (None: torch's choice).

    Without ``parallel`` small runs, those with a number of ``threads``, share the cores of a CPU;
    everything else goes one by one. Without ``threads`` runs at once divide the cores.
    """
    if parallel is None:
        parallel = 1
        if device == "cpu" and threads is not None:
            parallel = min(max(1, cores // threads), MOST_WORKERS)
    if threads is None and parallel > 1:
        threads = max(1, cores // parallel)
    return parallel, threads


def count_cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0))


def run_parallel(
    configs: Iterable[RunConfig],
    datasets: dict[DataKey, Dataset],
    observer: Observer,
    worker_config: WorkerConfig,
    workers: int,
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, Row]:
    """As ``runner.run_all``, with up to ``workers`` runs at once, each in a process of its own.

    A run whose process dies is given to another; the second time it is a failed row. An interrupt,
    which SIGTERM is too, has the processes save their runs; the second one ends them at once.

    Raises:
        StoreError: a row, a checkpoint or a file of weights cannot be written.
        WorkerError: processes do not start, or the images cannot be handed to them.
    """
    schedule = _Schedule({config.key: config for config in configs}, poll_seconds)
    if not schedule.pending:
        return {}
    with sigterm_interrupts(), saved(datasets) as images, Pool(worker_config, images) as pool:
        while schedule.pending:
            while len(pool.busy) < workers and (config := schedule.next()):
                pool.give(config)
            if not pool.busy:
                observer.waiting(len(schedule.pending))
                time.sleep(poll_seconds)
                continue
            for config, event in pool.events(poll_seconds if schedule.deferred else None):
                _take(config, event, schedule, observer, Store(worker_config.out))
    return schedule.rows


def _take(
    config: RunConfig, event: Any, schedule: _Schedule, observer: Observer, store: Store
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


class _Schedule:
    """Which run is next: in order, after the run that it starts from."""

    def __init__(self, pending: dict[str, RunConfig], poll_seconds: float) -> None:
        self.pending = pending
        self.rows: dict[str, Row] = {}
        # Runs that another runner has, and when to ask for them again.
        self.deferred: dict[str, float] = {}
        self._given: set[str] = set()
        self._deaths: dict[str, int] = {}
        self._unstarted = 0
        self._poll_seconds = poll_seconds

    def next(self) -> RunConfig | None:
        """The next run, which counts as given; None while there is none."""
        now = time.monotonic()
        for key, config in self.pending.items():
            waits = config.start in self.pending or self.deferred.get(key, now) > now
            if key not in self._given and not waits:
                self._given.add(key)
                self.deferred.pop(key, None)
                return config
        return None

    def defer(self, config: RunConfig) -> None:
        """Tries a run later that another runner is doing."""
        self._given.remove(config.key)
        self.deferred[config.key] = time.monotonic() + self._poll_seconds

    def finish(self, config: RunConfig, row: Row) -> None:
        """Its row is there."""
        del self.pending[config.key]
        self.rows[config.key] = row

    def died(self, config: RunConfig) -> bool:
        """Its process died: takes the run back, or returns True if it has been tried enough."""
        self._deaths[config.key] = self._deaths.get(config.key, 0) + 1
        if self._deaths[config.key] == MOST_DEATHS:
            return True
        self._given.remove(config.key)
        return False

    def unstarted(self, config: RunConfig, end: str) -> None:
        """Its process died before it could run anything: no fault of the run."""
        self._given.remove(config.key)
        self._unstarted += 1
        if self._unstarted == MOST_DEATHS:
            raise WorkerError(
                f"processes for several runs at once do not start: one ended {end}; what it said "
                "is above; --parallel 1 goes without"
            )
