"""A pytest plugin that appends a row for each finished test and skips tests that have one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.gpu_check import about, plan
from bench.gpu_check.record import Record

VARIABLE = "MASKEDCONV_GPU_CHECK_ROWS"  # 0 or 1 for a rehearsal, then the path of the file


def _record() -> tuple[Record, bool]:
    text = os.environ[VARIABLE]
    return Record(Path(text[1:])), text[0] == "1"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    record, rehearse = _record()
    answered = record.answered(about.describe(rehearse))
    done = [item for item in items if plan.key("tests", item.nodeid) in answered]
    config.hook.pytest_deselected(items=done)
    known = set(done)
    items[:] = [item for item in items if item not in known]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # With several processes, only the controller writes rows.
    if os.environ.get("PYTEST_XDIST_WORKER") or report.skipped:
        return
    if report.failed or report.when == "call":
        record, rehearse = _record()
        row = {
            "key": plan.key("tests", report.nodeid),
            "step": "tests",
            "seconds": round(report.duration, 3),
        }
        if report.failed:
            row |= {"status": "error", "error": report.longreprtext[-2000:]}
        else:
            row |= {"status": "ok"}
        record.append(row | about.describe(rehearse))
