"""Executes the missing runs of a command by its engine, with progress and messages on stderr."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from maskedconv.cli.listing import tell_untimed
from maskedconv.cli.options import INTERRUPTED, SOME_FAILED
from maskedconv.cli.progress import ConsoleObserver
from maskedconv.console import say
from maskedconv.runs import RunConfig, Store
from maskedconv.runs.engine import Engine
from maskedconv.runs.images import DataKey, data_key, size_of
from maskedconv.runs.parallel import run_parallel
from maskedconv.runs.row import Row
from maskedconv.runs.sequential import Observer, run_all, unfinished
from maskedconv.runs.store import StoreError
from maskedconv.runs.time_left import TimeLeft
from maskedconv.runs.workers import WorkerConfig, WorkerError, Workers

if TYPE_CHECKING:
    from maskedconv.data import Task

Datasets = dict[DataKey, "Task"]


def run_missing(
    configs: list[RunConfig],
    datasets: Datasets,
    worker_config: WorkerConfig,
    engine: Engine,
    at_once: int | None,
) -> dict[str, Row]:
    """Executes the runs that the folder lacks; returns the rows of all.

    Args:
        at_once: the most runs at once; None: as many as Ray's cluster has place for.

    Raises:
        typer.Exit: interrupted, or the folder or the engine cannot be used; told on stderr.
    """
    store = Store(worker_config.out)
    loaded = store.load()
    pending = unfinished(configs, store, loaded)
    left = {run.key for run in pending}
    rows = {run.key: loaded.rows[run.key] for run in configs if run.key not in left}
    for run in pending:
        if loaded.finished(run.key):
            say(f"note: {run.label()} is done again: others start from its weights, which are gone")
    if rows:
        say(f"{len(rows)} of {len(configs)} runs are finished in {store.out}")
    try:
        with ConsoleObserver(
            pending, _time_left(pending, datasets, worker_config, engine, at_once)
        ) as observer:
            return rows | _execute(pending, datasets, observer, worker_config, engine, at_once)
    except KeyboardInterrupt:
        _tell_interrupted(configs, store)
        raise typer.Exit(INTERRUPTED) from None
    except (StoreError, WorkerError) as error:
        say(f"error: {error}; finished runs are kept, and the same command resumes")
        raise typer.Exit(SOME_FAILED) from error


def _execute(
    pending: list[RunConfig],
    datasets: Datasets,
    observer: Observer,
    worker_config: WorkerConfig,
    engine: Engine,
    at_once: int | None,
) -> dict[str, Row]:
    if engine.is_ray:
        from maskedconv.runs.on_ray import run_on_ray

        return run_on_ray(pending, datasets, observer, worker_config, engine, at_once)
    if at_once is not None and at_once > 1:
        return run_parallel(pending, datasets, observer, worker_config, at_once)
    return run_all(
        pending,
        Store(worker_config.out),
        lambda run: datasets[data_key(run)],
        observer,
        checkpoint_seconds=worker_config.checkpoint_seconds,
        graph=worker_config.graph,
    )


def _tell_interrupted(configs: list[RunConfig], store: Store) -> None:
    from maskedconv.runs.checkpoints import has_checkpoint

    loaded = store.load()
    left = unfinished(configs, store, loaded)
    begun = sum(has_checkpoint(store.out, run) for run in left)
    say(
        f"interrupted: {len(configs) - len(left)} of {len(configs)} runs are finished in "
        f"{store.out}, {begun} more are saved; the same command resumes them"
    )


def _time_left(
    pending: list[RunConfig],
    datasets: Datasets,
    worker_config: WorkerConfig,
    engine: Engine,
    at_once: int | None,
) -> TimeLeft | None:
    """Estimates the remaining time if stderr is a terminal.

    Batches that are timed here say nothing of a cluster's machines.
    """
    if engine.is_ray or at_once is None or not (pending and sys.stderr.isatty()):
        return None
    from maskedconv.runs.estimate import coarse_estimate, total_seconds

    say("timing some batches of each network ...")
    tell_untimed(pending)
    sizes = {key: size_of(dataset) for key, dataset in datasets.items()}
    workers = Workers(at_once, worker_config.device, worker_config.threads)
    return TimeLeft(pending, coarse_estimate(pending, sizes, workers), at_once, total_seconds)
