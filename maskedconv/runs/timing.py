"""Times a few training steps and predictions of a network on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from maskedconv import data
from maskedconv.data import Task
from maskedconv.runs.config import RunConfig
from maskedconv.runs.execute import build_model
from maskedconv.runs.images import Size
from maskedconv.training.evaluation import evaluate, test_batch_size
from maskedconv.training.loop import train

# Number of timed batches, and the longest time of one; larger batches are truncated.
BATCHES = 4
BATCH_SECONDS = 0.5
WARM_UP_IMAGES = 16


@dataclass(frozen=True)
class Job:
    """A network and images to be timed: those of ``config``, with images of ``size``."""

    config: RunConfig
    size: Size


@dataclass(frozen=True)
class Pace:
    """Seconds to create a network, and per image in training and in evaluation."""

    start: float
    train: float
    test: float


def measure(job: Job, device: torch.device) -> Pace:
    """Times some batches with the augmentation, optimizer and precision of the run."""
    config, size = job.config, job.size
    begin = time.perf_counter()
    model = build_model(config, size.num_classes, size.image_shape)
    start = time.perf_counter() - begin
    batch = min(config.batch_size, size.train_images)
    small = min(WARM_UP_IMAGES, batch)
    _train(model, config, _noise(job, small, 1, device), small, device)
    # The second time includes no setup, and determines how many images to time.
    images = _noise(job, small, 1, device)
    each = _train(model, config, images, small, device) / small
    batch = max(small, min(batch, int(BATCH_SECONDS / each)))
    tests = min(test_batch_size(device), int(BATCH_SECONDS / each))
    tests = min(size.test_images, max(small, tests))
    images = _noise(job, BATCHES * batch, tests, device)
    evaluate(model, images, amp=config.amp == "bf16")
    test = _seconds(lambda: evaluate(model, images, amp=config.amp == "bf16"), device)
    both = _train(model, config, images, batch, device)
    return Pace(start, max(both - test, 0.0) / (BATCHES * batch), test / tests)


def _train(
    model: nn.Module, config: RunConfig, images: Task, batch: int, device: torch.device
) -> float:
    """Seconds of an epoch of ``images``, with evaluation, at a negligible learning rate."""
    timed = replace(
        # Eager: compiling takes longer than these few steps.
        config,
        epochs=1,
        batch_size=batch,
        lr=1e-6,
        milestones=(),
        schedule="step",
        compile=False,
    )

    def epoch() -> None:
        train(model, images, timed)

    return _seconds(epoch, device)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    begin = time.perf_counter()
    action()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin


def _noise(job: Job, train_size: int, test_size: int, device: torch.device) -> Task:
    """Random examples, augmented like those of the run."""
    shape = job.size.image_shape
    made = data.noise(job.config.dataset, shape, job.size.num_classes, (train_size, test_size))
    return made.to(device)
