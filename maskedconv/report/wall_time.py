"""The wall time of runs: runs in parallel count once."""

from __future__ import annotations

import datetime
from collections.abc import Iterable

from maskedconv.report.results import Run


def wall_seconds(runs: Iterable[Run]) -> float:
    """Seconds in which at least one of ``runs`` was training, from their starts and durations."""
    spans = sorted(
        (datetime.datetime.fromisoformat(started).timestamp(), run.seconds)
        for run in runs
        if run.row is not None and (started := run.row.get("started"))
    )
    total, end = 0.0, float("-inf")
    for start, seconds in spans:
        total += max(0.0, start + seconds - max(start, end))
        end = max(end, start + seconds)
    return total
