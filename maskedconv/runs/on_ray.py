"""Runs as tasks of a Ray cluster, whose machines share the output folder."""

from __future__ import annotations

import logging
import os
import platform
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

from maskedconv.console import say
from maskedconv.runs.config import RunConfig
from maskedconv.runs.engine import LOCAL, Engine
from maskedconv.runs.images import DataKey, data_key
from maskedconv.runs.parallel import Schedule, finish_all
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import POLL_SECONDS, Observer, attempt
from maskedconv.runs.store import Store, StoreError
from maskedconv.runs.workers import WorkerConfig, WorkerError
from maskedconv.training.device import open_device
from maskedconv.training.interrupts import sigterm_interrupts

if TYPE_CHECKING:
    from maskedconv.data import Task

# Runs that are asked to stop write their checkpoint within this time, or it is lost.
SAVE_SECONDS = 60.0


def run_on_ray(
    configs: Iterable[RunConfig],
    datasets: dict[DataKey, Task],
    observer: Observer,
    worker_config: WorkerConfig,
    engine: Engine,
    at_once: int | None,
) -> dict[str, Row]:
    """As ``sequential.run_all``, with each run a task of the cluster that ``engine`` names.

    A task takes ``worker_config.threads`` CPUs (None: one) and ``engine.gpus_per_run``. A run whose
    worker process or machine dies is given to another one, which resumes from the checkpoint in the
    folder; if that one dies too, the run fails. The first interrupt (Ctrl-C or SIGTERM) makes the
    tasks save their runs.

    Args:
        at_once: the most runs at once; None: as many as the cluster has place for at the start.

    Raises:
        StoreError: a row, a checkpoint or a file of weights cannot be written, or a machine of the
            cluster does not see the folder.
        WorkerError: there is no such cluster, it has no place for a run, or its workers cannot
            import this package.
    """
    schedule = Schedule({config.key: config for config in configs}, POLL_SECONDS)
    if not schedule.pending:
        return {}
    worker_config = replace(
        worker_config, out=worker_config.out.resolve(), threads=worker_config.threads or 1
    )
    # Ray handles SIGTERM from its start on, so that ours comes after it.
    with _Cluster(engine, worker_config, at_once) as cluster, sigterm_interrupts():
        tasks = _Tasks(cluster, datasets)
        try:
            finish_all(schedule, tasks, cluster.places, observer, Store(worker_config.out))
        except KeyboardInterrupt:
            tasks.stop()
            raise
    return schedule.rows


class _Cluster:
    """Context manager of the connection to the cluster.

    Attributes:
        places: how many runs the cluster executes at once.
    """

    def __init__(self, engine: Engine, worker_config: WorkerConfig, at_once: int | None) -> None:
        self.worker_config = worker_config
        self.needs: dict[str, float] = {"CPU": worker_config.threads or 1}
        if engine.gpus_per_run:
            self.needs["GPU"] = engine.gpus_per_run
        self._address = engine.address or LOCAL
        self._at_once = at_once

    def __enter__(self) -> _Cluster:
        import ray

        try:
            ray.init(**self._options())
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise WorkerError(f"address is {self._address!r}: no Ray cluster: {error}") from error
        try:
            self.places = self._count_places(ray.cluster_resources())
        except WorkerError:
            ray.shutdown()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import ray

        ray.shutdown()

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"address": self._address, "logging_level": logging.WARNING}
        if self._address == LOCAL:
            # A command that is asked to run some networks sends no statistics anywhere.
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            options["include_dashboard"] = False
            if self._at_once is not None:
                options["num_cpus"] = self._at_once * int(self.needs["CPU"])
        return options

    def _count_places(self, has: dict[str, float]) -> int:
        # In steps of 1e-4, in which Ray counts as well.
        places = min(
            round(1e4 * has.get(name, 0)) // round(1e4 * need) for name, need in self.needs.items()
        )
        if not places:
            needs = ", ".join(f"{need:g} {name}" for name, need in self.needs.items())
            found = ", ".join(f"{has.get(name, 0):g} {name}" for name in self.needs)
            raise WorkerError(f"a run takes {needs}; the Ray cluster has {found} in total")
        return min(places, self._at_once or places)


class _Tasks:
    """The tasks in progress, with the interface of ``workers.Pool``."""

    def __init__(self, cluster: _Cluster, datasets: dict[DataKey, Task]) -> None:
        import ray

        self.busy: dict[Any, RunConfig] = {}
        self._given: list[RunConfig] = []
        self._worker_config = ray.put(cluster.worker_config)
        self._datasets = ray.put(datasets)
        # The schedule repeats a run itself, as it must know of a death.
        self._remote = ray.remote(_execute).options(
            num_cpus=cluster.needs["CPU"],
            num_gpus=cluster.needs.get("GPU", 0),
            max_retries=0,
            name="maskedconv",
        )

    def give(self, config: RunConfig) -> None:
        """Submits the run."""
        task = self._remote.remote(config, self._worker_config, self._datasets)
        self.busy[task] = config
        self._given.append(config)

    def events(self, timeout: float | None) -> Iterator[tuple[RunConfig, Any]]:
        """As ``workers.Pool.events``; epochs are not reported before the row."""
        import ray

        given, self._given = self._given, []
        for config in given:
            yield config, ("started",)
        done, _ = ray.wait(list(self.busy), timeout=timeout)
        for task in done:
            yield self.busy.pop(task), _event_of(task)

    def stop(self) -> None:
        """Asks the tasks to save their runs and waits for them."""
        import ray

        say("interrupted: saving the runs in progress")
        for task in self.busy:
            ray.cancel(task)
        ray.wait(list(self.busy), num_returns=len(self.busy), timeout=SAVE_SECONDS)


def _event_of(task: Any) -> tuple[Any, ...]:
    """The event that a finished task returns, or that its end is."""
    import ray
    from ray import exceptions

    try:
        return ray.get(task)
    except (exceptions.WorkerCrashedError, exceptions.NodeDiedError) as error:
        return "died", f"as Ray says: {_first_line(error)}"
    except exceptions.OutOfMemoryError as error:
        return "died", f"for lack of memory: {_first_line(error)}"
    except exceptions.RayError as error:
        raise WorkerError(f"a task of Ray failed: {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _execute(
    config: RunConfig, worker_config: WorkerConfig, datasets: dict[DataKey, Task]
) -> tuple[Any, ...]:
    """The task: executes one run in a process of the cluster."""
    store = Store(worker_config.out)
    if not store.is_prepared():
        return "store", (
            f"{worker_config.out} is not on the machine {platform.node()}; expected --out in a "
            "folder that all machines of the cluster share"
        )
    # Ray cancels a task by this signal, which workers of a command in the background ignore.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    device = open_device(worker_config.device, worker_config.threads)
    dataset = datasets[data_key(config)].to(device)
    try:
        row = attempt(
            config,
            store,
            lambda _: dataset,
            _Silent(),
            worker_config.checkpoint_seconds,
            worker_config.graph,
        )
    except StoreError as error:
        return "store", str(error)
    return "row", row


class _Silent:
    """Reports no progress; the row tells it."""

    def started(self, config: RunConfig) -> None:
        pass

    def epoch(self, config: RunConfig, epoch: Any) -> None:
        pass
