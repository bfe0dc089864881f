"""Peak memory, measured in processes of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

PROCESSES = 3


def median_peak(measure: Callable[..., int], *arguments: Any) -> int:
    """The median of ``measure(*arguments)``, called once in each of several new processes."""
    context = multiprocessing.get_context("spawn")
    found = []
    for _ in range(PROCESSES):
        with context.Pool(1) as pool:
            found.append(pool.apply(measure, arguments))
    return sorted(found)[PROCESSES // 2]
