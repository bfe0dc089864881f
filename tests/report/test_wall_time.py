"""The wall time of runs, from their rows."""

from __future__ import annotations

import pytest
from report_samples import config, row

from maskedconv.report.results import Run
from maskedconv.report.wall_time import wall_seconds


def run_of(seed, hour, hours, spans=()):
    """A run of ``hours`` from an hour of the day on; ``spans`` are those of its processes."""
    planned = config(seed=seed)
    parts = [{"started": at(start), "seconds": 3600.0 * length} for start, length in spans]
    extra = {"spans": parts} if parts else {}
    found = row(planned, 50.0, started=at(hour), seconds=3600.0 * hours, **extra)
    return Run(planned, found, planned.key)


def at(hour):
    return f"2024-01-{1 + hour // 24:02}T{hour % 24:02}:00:00+00:00"


@pytest.mark.parametrize(
    ("runs", "hours"),
    [
        ([run_of(0, 0, 2), run_of(1, 2, 2)], 4),
        ([run_of(0, 0, 3), run_of(1, 2, 3)], 5),
        # Ten hours, an interruption of two hours, one more hour, and the next runs.
        ([run_of(0, 12, 11, [(0, 10), (12, 1)]), *(run_of(n, 12 + n, 1) for n in range(1, 4))], 14),
        # Another run goes on during the interruption.
        ([run_of(0, 12, 11, [(0, 10), (12, 1)]), run_of(1, 9, 4)], 13),
    ],
    ids=["one by one", "at once", "interrupted", "interrupted beside another"],
)
def test_every_process_of_a_run_counts_in_its_own_time(runs, hours):
    assert wall_seconds(runs) == 3600 * hours


def test_runs_without_a_row_or_a_start_take_no_time():
    planned = config()
    nothing = Run(planned, None, planned.key)
    unknown = Run(planned, {**row(planned, 50.0), "started": None}, planned.key)
    assert wall_seconds([nothing, unknown]) == 0
