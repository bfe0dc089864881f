"""The wall time of runs: runs in parallel count once."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator

from maskedconv.report.results import Run
from maskedconv.training.history import Span


def wall_seconds(runs: Iterable[Run]) -> float:
    """Seconds in which at least one of ``runs`` was training, from their starts and durations.

    Each process of an interrupted run counts in its own time. Rows of older versions name the start
    of the last one alone; all seconds count from there on.
    """
    spans = sorted(span for run in runs for span in _spans(run))
    total, end = 0.0, float("-inf")
    for start, seconds in spans:
        total += max(0.0, start + seconds - max(start, end))
        end = max(end, start + seconds)
    return total


def _spans(run: Run) -> Iterator[tuple[float, float]]:
    """Start and duration of each process of a run, in seconds."""
    if run.row is None:
        return
    started = run.row.get("started")
    whole: list[Span] = [{"started": started, "seconds": run.seconds}] if started else []
    for span in run.row.get("spans") or whole:
        yield datetime.datetime.fromisoformat(span["started"]).timestamp(), span["seconds"]
