"""Does the runs that are not there yet, alone or beside other runners on the same folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

from maskedconv.experiments.config import RunConfig
from maskedconv.experiments.store import Row, Store

if TYPE_CHECKING:
    from maskedconv.data import Dataset
    from maskedconv.training import Epoch

POLL_SECONDS = 1.0


class Observer(Protocol):
    """Is told how the runs go."""

    def started(self, config: RunConfig) -> None: ...
    def epoch(self, config: RunConfig, epoch: Epoch) -> None: ...
    def finished(self, config: RunConfig, row: Row) -> None: ...
    def waiting(self, runs: int) -> None: ...


def unique(configs: Iterable[RunConfig]) -> list[RunConfig]:
    """Each run once, in order: figures share runs."""
    return list({config.key: config for config in configs}.values())


def run_all(
    configs: Iterable[RunConfig],
    store: Store,
    dataset_of: Callable[[RunConfig], Dataset],
    observer: Observer,
    poll_seconds: float = POLL_SECONDS,
) -> dict[str, Row]:
    """Does every run that ``store`` lacks; returns the row of every run, by key.

    Runs that another process is doing are left to it and waited for; should it die, they are done
    here. A failed run is a row like the others.

    Raises:
        StoreError: a row cannot be written.
    """
    pending = {config.key: config for config in configs}
    rows: dict[str, Row] = {}
    while pending:
        left = len(pending)
        for key, config in list(pending.items()):
            with store.claim(key) as mine:
                row = store.load().finished(key)
                if row is None and not mine:
                    continue
                if row is None:
                    row = _run_one(config, store, dataset_of(config), observer)
            rows[key] = row
            del pending[key]
            observer.finished(config, row)
        if len(pending) == left:
            observer.waiting(left)
            time.sleep(poll_seconds)
    return rows


def _run_one(config: RunConfig, store: Store, dataset: Dataset, observer: Observer) -> Row:
    from maskedconv.experiments.execute import execute

    observer.started(config)
    row = execute(config, dataset, lambda epoch: observer.epoch(config, epoch))
    store.append(row)
    return row
