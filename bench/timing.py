"""Paired timing: every round runs each function once, so that drift of the machine cancels.

Each round has a new random order, because the previous function determines the cache contents.
"""

from __future__ import annotations

import ctypes
import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from maskedconv.ops.timing import CudaQueue, queued_times
from maskedconv.training.memory import keep_freed_memory

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
    """Time of ``over`` as a multiple of ``under``: the median of the rounds' ratios."""
    pairs = zip(samples[over], samples[under], strict=True)
    return statistics.median(first / second for first, second in pairs)


def time_together(
    functions: Mapping[str, Callable[[], object]],
    device: str,
    rounds: int,
    warmup: int = 2,
    *,
    with_python: bool = False,
) -> Samples:
    """Times of each function over ``rounds`` paired repetitions, after ``warmup`` rounds.

    Args:
        with_python: on CUDA, include the time of Python. By default only the GPU's work is timed,
            which is queued while the GPU sleeps.
    """
    measure = _on_cpu
    if device == "cuda":
        measure = _until_done if with_python else _on_gpu
    # Otherwise page faults of large tensors dominate many comparisons.
    keep_freed_memory()
    samples: Samples = {name: [] for name in functions}
    order = random.Random(0)
    for index in range(warmup + rounds):
        for name in order.sample(list(functions), len(functions)):
            milliseconds = measure(functions[name])
            if index >= warmup:
                samples[name].append(milliseconds)
    return samples


def release_freed_memory() -> None:
    """Returns the memory that ``keep_freed_memory`` has kept; does nothing without glibc."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _on_cpu(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return (time.perf_counter() - start) * 1e3


def _until_done(function: Callable[[], object]) -> float:
    def waited() -> None:
        function()
        torch.cuda.synchronize()

    torch.cuda.synchronize()
    return _on_cpu(waited)


def _on_gpu(function: Callable[[], object]) -> float:
    queue = CudaQueue(torch.device("cuda", torch.cuda.current_device()))
    # A cold cache, as between the layers of a network.
    return queued_times(function, queue, 1, flush_cache, warmup=1).milliseconds[0]


def flush_cache() -> None:
    """Writes more bytes than the cache of any GPU."""
    torch.empty(64 << 20, dtype=torch.float32, device="cuda").zero_()
