"""A pytest plugin that appends a row for each finished test and skips tests that have one.

After a CUDA error that leaves the GPU unusable for a process, its other tests are skipped. They
have no row, so that another process runs them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.gpu_check import about, plan
from bench.gpu_check.record import Record

LOST = "lost_gpu"  # field of the row of the test after which the GPU was unusable
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


def pytest_runtest_setup() -> None:
    if _is_lost[0]:
        pytest.skip("the GPU is lost to this process")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    if report.failed and not _is_lost[0] and _loses_the_gpu():
        _is_lost[0] = True
        report.user_properties.append((LOST, True))
    return report


_is_lost = [False]


def _loses_the_gpu() -> bool:
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


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
            row |= {name: value for name, value in report.user_properties if name == LOST}
        else:
            row |= {"status": "ok"}
        record.append(row | about.describe(rehearse))
