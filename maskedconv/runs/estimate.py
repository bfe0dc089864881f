"""Estimates the time of runs on this machine from a few batches of each kind."""

from __future__ import annotations

import heapq
import multiprocessing
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor

import torch

from maskedconv.runs.config import RunConfig
from maskedconv.runs.images import DataKey, Size, data_key
from maskedconv.runs.same import learned_fraction
from maskedconv.runs.timing import Job, Pace, measure
from maskedconv.runs.workers import Workers
from maskedconv.training.device import open_device

Sizes = Mapping[DataKey, Size]
_Kind = tuple[object, ...]


def estimate(configs: Iterable[RunConfig], sizes: Sizes, workers: Workers) -> dict[str, float]:
    """Estimated seconds of each run, by key, on ``workers``.

    Runs of one kind differ only in the learned fraction. The runs with the smallest and the largest
    fraction of each kind are timed, with the planned number of parallel processes. The others are
    interpolated.
    """
    kinds: dict[_Kind, dict[float, RunConfig]] = {}
    runs = list(configs)
    for run in runs:
        kinds.setdefault(_kind(run, sizes), {}).setdefault(learned_fraction(run), run)
    ends = {
        (kind, fraction): fractions[fraction]
        for kind, fractions in kinds.items()
        for fraction in {min(fractions), max(fractions)}
    }
    jobs = [Job(run, sizes[data_key(run)]) for run in ends.values()]
    paces = dict(zip(ends, _measure_all(jobs, workers), strict=True))
    seconds = {}
    for run in runs:
        kind, fraction = _kind(run, sizes), learned_fraction(run)
        low, high = min(kinds[kind]), max(kinds[kind])
        size = sizes[data_key(run)]
        few, many = (_run_seconds(run, size, paces[kind, end]) for end in (low, high))
        between = (fraction - low) / (high - low) if high > low else 0.0
        seconds[run.key] = few + between * (many - few)
    return seconds


def coarse_estimate(
    configs: Iterable[RunConfig], sizes: Sizes, workers: Workers
) -> dict[str, float]:
    """A faster, coarse form of :func:`estimate`, from one run of each network."""
    runs = list(configs)
    first: dict[_Kind, RunConfig] = {}
    for run in runs:
        first.setdefault(_network(run, sizes), run)
    jobs = [Job(run, sizes[data_key(run)]) for run in first.values()]
    alone = Workers(1, workers.device, workers.threads)
    paces = dict(zip(first, _measure_all(jobs, alone), strict=True))
    return {
        run.key: _run_seconds(run, sizes[data_key(run)], paces[_network(run, sizes)])
        for run in runs
    }


def total_seconds(runs: Iterable[RunConfig], seconds: Mapping[str, float], at_once: int) -> float:
    """Seconds until the last of ``runs`` is finished, with ``at_once`` in parallel, in order.

    A run that starts from the weights of another waits for it.
    """
    free = [0.0] * at_once
    ends: dict[str, float] = {}
    for run in runs:
        begin = max(heapq.heappop(free), ends.get(run.start, 0.0))
        ends[run.key] = begin + seconds[run.key]
        heapq.heappush(free, ends[run.key])
    return max(ends.values(), default=0.0)


def _network(run: RunConfig, sizes: Sizes) -> _Kind:
    size = sizes[data_key(run)]
    return run.model, run.options, size.num_classes, size.image_shape, run.batch_size, run.amp


def _kind(run: RunConfig, sizes: Sizes) -> _Kind:
    # With everything learned nothing is frozen: this run bounds both the random and zeroed kind.
    split = run.method, run.method_options, run.slice_dim, run.frozen
    return *_network(run, sizes), run.optimizer, run.trained, *split


def _run_seconds(run: RunConfig, size: Size, pace: Pace) -> float:
    epoch = size.train_images * pace.train + size.test_images * pace.test
    # The members of an ensemble are evaluated once more, jointly.
    together = run.members * size.test_images * pace.test
    return pace.start + run.all_epochs * epoch + together


def _measure_all(jobs: list[Job], workers: Workers) -> list[Pace]:
    if workers.count == 1 or len(jobs) < 2:
        device = open_device(workers.device, workers.threads)
        return [measure(job, device) for job in jobs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers.count, context, _begin, (workers.device, workers.threads)
    ) as pool:
        return list(pool.map(_measure_here, jobs))


_device = torch.device("cpu")


def _begin(device: str, threads: int | None) -> None:
    global _device
    _device = open_device(device, threads)


def _measure_here(job: Job) -> Pace:
    return measure(job, _device)
