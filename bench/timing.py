"""Paired timing: every round runs each function once, so that drift of the machine cancels out.

The order within a round is drawn anew each time: what ran before decides what the caches hold.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from maskedconv.memory import keep_freed_memory

# Milliseconds of each function, round by round.
Samples = dict[str, list[float]]


class Quantiles(NamedTuple):
    """Milliseconds."""

    p20: float
    p50: float
    p80: float


def quantiles(values: Sequence[float]) -> Quantiles:
    ordered = sorted(values)
    return Quantiles(*(ordered[int(q * (len(ordered) - 1))] for q in (0.2, 0.5, 0.8)))


def ratio(samples: Samples, over: str, under: str) -> float:
    """Time of ``over`` as a multiple of that of ``under``: the median of the rounds' ratios."""
    pairs = zip(samples[over], samples[under], strict=True)
    return statistics.median(first / second for first, second in pairs)


def time_together(
    functions: Mapping[str, Callable[[], object]], device: str, rounds: int = 20, warmup: int = 2
) -> Samples:
    """Times of each function over ``rounds`` paired repetitions, after ``warmup`` rounds."""
    measure = _on_cuda if device == "cuda" else _on_cpu
    # Else page faults of large tensors decide many comparisons.
    keep_freed_memory()
    samples: Samples = {name: [] for name in functions}
    order = random.Random(0)
    for index in range(warmup + rounds):
        for name in order.sample(list(functions), len(functions)):
            milliseconds = measure(functions[name])
            if index >= warmup:
                samples[name].append(milliseconds)
    return samples


def _on_cpu(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def _on_cuda(function: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    # A clean cache, as between the layers of a network.
    torch.empty(64 << 20, dtype=torch.float32, device="cuda").zero_()
    start.record()
    function()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)
