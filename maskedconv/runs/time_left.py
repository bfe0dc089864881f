"""The remaining time of a command: an estimate, corrected by finished epochs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from maskedconv.runs.config import RunConfig

if TYPE_CHECKING:
    from maskedconv.training.history import Epoch

_Group = tuple[object, ...]
_Total = Callable[[Iterable[RunConfig], Mapping[str, float], int], float]


class TimeLeft:
    """Remaining seconds of runs, updated by their progress.

    Finished epochs give the error of the estimate. A run is corrected by the epochs of its own
    kind, else of its network, else of all runs.

    Args:
        runs: the runs, in order of execution.
        seconds: an estimate for each, by key.
        at_once: number of parallel runs.
        total: as ``estimate.total_seconds``.
        clock: as ``time.monotonic``.
    """

    def __init__(
        self,
        runs: Iterable[RunConfig],
        seconds: Mapping[str, float],
        at_once: int,
        total: _Total,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._left = {run.key: run for run in runs}
        self._epoch = {key: seconds[key] / run.all_epochs for key, run in self._left.items()}
        self._epochs_left = {key: run.all_epochs for key, run in self._left.items()}
        self._at_once, self._total, self._clock = at_once, total, clock
        # Estimated and measured seconds of the finished epochs.
        self._sums: dict[_Group, tuple[float, float]] = {}
        # Start of the current epoch of each run in progress.
        self._since: dict[str, float] = {}

    def started(self, run: RunConfig) -> None:
        """A run starts, or restarts after its process died."""
        self._since[run.key] = self._clock()
        self._epochs_left[run.key] = run.all_epochs

    def epoch(self, run: RunConfig, epoch: Epoch) -> None:
        """An epoch of a run is finished."""
        self._epochs_left[run.key] = max(0, self._epochs_left[run.key] - 1)
        for group in _groups(run):
            estimated, measured = self._sums.get(group, (0.0, 0.0))
            self._sums[group] = (estimated + self._epoch[run.key], measured + epoch.seconds)
        self._since[run.key] = self._clock()

    def finished(self, run: RunConfig) -> None:
        """A run has ended, successfully or not."""
        self._left.pop(run.key, None)
        self._since.pop(run.key, None)

    @property
    def seconds(self) -> float:
        """Seconds from now until the last run ends."""
        ordered = sorted(self._left.values(), key=lambda run: run.key not in self._since)
        needed = {run.key: self._seconds_of(run) for run in ordered}
        return self._total(ordered, needed, self._at_once)

    def _seconds_of(self, run: RunConfig) -> float:
        epoch = self._epoch[run.key] * self._correction(run)
        now = self._clock()
        done = min(now - self._since.get(run.key, now), epoch)
        return max(0.0, self._epochs_left[run.key] * epoch - done)

    def _correction(self, run: RunConfig) -> float:
        for group in _groups(run):
            estimated, measured = self._sums.get(group, (0.0, 0.0))
            if estimated:
                return measured / estimated
        return 1.0


def _groups(run: RunConfig) -> tuple[_Group, ...]:
    """Groups of runs, from the most similar to all runs."""
    network = (run.model, run.options, run.batch_size)
    split = run.method, run.method_options, run.learned, run.frozen, run.trained
    return (*network, *split, run.optimizer), network, ()
