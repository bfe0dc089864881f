"""Executes missing runs one by one. Several commands may share an output folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from maskedconv.runs.config import RunConfig
from maskedconv.runs.row import Row, begin_row, fail
from maskedconv.runs.store import Loaded, Store, is_final
from maskedconv.training import interrupts
from maskedconv.training.history import History

if TYPE_CHECKING:
    from maskedconv.data import Task
    from maskedconv.training.history import Epoch

POLL_SECONDS = 1.0
CHECKPOINT_SECONDS = 120.0
DatasetOf = Callable[[RunConfig], "Task"]


class Progress(Protocol):
    """Receives the progress of a run."""

    def started(self, config: RunConfig) -> None: ...
    def epoch(self, config: RunConfig, epoch: Epoch) -> None: ...


class Observer(Progress, Protocol):
    """Receives the progress of all runs."""

    def finished(self, config: RunConfig, row: Row) -> None: ...
    def waiting(self, runs: int) -> None: ...


def unique(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Each run once, in order, because figures share runs."""
    return list({config.key: config for config in configs}.values())


def unfinished(configs: Iterable[RunConfig], store: Store, loaded: Loaded) -> list[RunConfig]:
    """The runs that are to be executed, in order.

    Among them is a finished run whose weights are no longer in the folder, if another one of them
    starts from it.
    """
    runs = list(configs)
    left = {run.key for run in runs if loaded.finished(run.key) is None}
    starts = {run.start for run in runs if run.key in left}
    left |= {run.key for run in runs if run.key in starts and _lacks_weights(run, store, loaded)}
    return [run for run in runs if run.key in left]


def run_all(
    configs: Iterable[RunConfig],
    store: Store,
    dataset_of: DatasetOf,
    observer: Observer,
    *,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    graph: str = "off",
) -> dict[str, Row]:
    """Executes every run that ``store`` lacks; returns the row of every run, by key.

    A run that starts from the weights of another comes after it. A run that keeps its weights is
    done again if they are not there. If another process is doing a run, this function waits for it,
    and does the run itself if that process dies. A failed run has a row, too. ``graph`` is that of
    :func:`maskedconv.runs.execute.execute`.

    Raises:
        StoreError: a row, a checkpoint or a file of weights cannot be written.
    """
    pending = {config.key: config for config in configs}
    rows: dict[str, Row] = {}
    while pending:
        left = len(pending)
        for key, config in list(pending.items()):
            if config.start in pending:
                continue
            row = attempt(config, store, dataset_of, observer, checkpoint_seconds, graph)
            if row is None:
                continue
            rows[key] = row
            del pending[key]
            observer.finished(config, row)
        if len(pending) == left:
            observer.waiting(left)
            time.sleep(POLL_SECONDS)
    return rows


def attempt(
    config: RunConfig,
    store: Store,
    dataset_of: DatasetOf,
    progress: Progress,
    checkpoint_seconds: float,
    graph: str,
) -> Row | None:
    """The run's row, from the folder or by executing it; None if another process is doing it.

    Raises:
        KeyboardInterrupt: a stop was requested; the run's checkpoint is written.
        StoreError: as :func:`run_all`.
    """
    with store.claim(config.key) as mine:
        loaded = store.load()
        row = None if _lacks_weights(config, store, loaded) else loaded.finished(config.key)
        if row is not None or not mine:
            return row
        if reason := _start_lacks(config, store, loaded):
            row = not_run(config, reason, "StartFailed")
            store.append(row)
            return row
        with interrupts.noted():
            dataset = dataset_of(config)
            return _run_one(config, store, dataset, progress, checkpoint_seconds, graph)


def not_run(config: RunConfig, error: str, error_type: str) -> Row:
    """The row of a run that failed before it started, or whose process died."""
    row = begin_row(config)
    fail(row, error, error_type, History())
    row["seconds"] = 0.0
    return row


def _lacks_weights(config: RunConfig, store: Store, loaded: Loaded) -> bool:
    """Whether the run is done, and the weights that it keeps are not in the folder."""
    from maskedconv.runs.weights import weights_path

    row = loaded.rows.get(config.key)
    done = config.keep and row is not None and row["status"] == "done"
    return done and not weights_path(store.out, config.key).exists()


def _start_lacks(config: RunConfig, store: Store, loaded: Loaded) -> str:
    if not config.start:
        return ""
    start = loaded.rows.get(config.start)
    if start is None:
        return f"its start {config.start} has not been run"
    kept = RunConfig.from_json(start["config"])
    if start["status"] != "done":
        return f"its start {kept.label()} failed: {start['error']}"
    if _lacks_weights(kept, store, loaded):
        return f"the weights of its start {kept.label()} are not in {store.out}"
    return ""


def _run_one(
    config: RunConfig,
    store: Store,
    dataset: Task,
    progress: Progress,
    checkpoint_seconds: float,
    graph: str,
) -> Row:
    from maskedconv.runs.checkpoints import remove_checkpoint
    from maskedconv.runs.execute import execute

    progress.started(config)
    row = execute(
        config,
        dataset,
        lambda epoch: progress.epoch(config, epoch),
        folder=store.out,
        checkpoint_seconds=checkpoint_seconds,
        graph=graph,
    )
    store.append(row)
    # A failed run that is tried again resumes from its checkpoint; no other checkpoint is needed.
    if is_final(row):
        with suppress(OSError):
            remove_checkpoint(store.out, config)
    return row
