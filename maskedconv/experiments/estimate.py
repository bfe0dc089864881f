"""How long runs will take on this machine, from a few training steps of each network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from maskedconv.data import Dataset
from maskedconv.experiments.config import RunConfig
from maskedconv.experiments.execute import build_model
from maskedconv.experiments.images import DataKey, Size, data_key
from maskedconv.training import evaluate, train

WARM_UP_IMAGES = 16
# Of each network: small ones are timed more than once.
TIMING_SECONDS = 0.3


def estimate(
    configs: Iterable[RunConfig], sizes: dict[DataKey, Size], device: torch.device
) -> dict[str, float]:
    """Seconds that each run will take, by key.

    One run of each network, size of the images and optimizer is timed for a batch and stands for
    the others, which is near enough to decide whether to start: learning fewer filters saves less
    than half of the time.
    """
    paces: dict[tuple[object, ...], _Pace] = {}
    seconds = {}
    for config in configs:
        size = sizes[data_key(config)]
        network = (config.model, config.options, size.num_classes, size.image_shape)
        kind = (*network, config.batch_size, config.optimizer, config.amp)
        if kind not in paces:
            paces[kind] = _measure(config, size, device)
        pace = paces[kind]
        epoch = size.train_images * pace.train + size.test_images * pace.test
        # An ensemble's members answer once more, together.
        together = config.members * size.test_images * pace.test
        seconds[config.key] = config.all_epochs * epoch + together
    return seconds


@dataclass(frozen=True)
class _Pace:
    """Seconds per image of training and of evaluation."""

    train: float
    test: float


def _measure(config: RunConfig, size: Size, device: torch.device) -> _Pace:
    model = build_model(config, size.num_classes, size.image_shape)
    images = min(config.batch_size, size.train_images)
    warm_up = _noise(size, min(WARM_UP_IMAGES, images), device)
    batch = _noise(size, images, device)
    amp = config.amp == "bf16"

    def train_on(dataset: Dataset) -> None:
        train(
            model,
            dataset,
            epochs=1,
            batch_size=config.batch_size,
            lr=1e-6,
            momentum=config.momentum,
            optimizer=config.optimizer,
            amp=amp,
        )

    train_on(warm_up)
    # train() evaluates as well, on as many images.
    test = _seconds(lambda: evaluate(model, batch, amp=amp))
    both = _seconds(lambda: train_on(batch))
    return _Pace(max(both - test, test) / images, test / images)


def _seconds(action: Callable[[], object]) -> float:
    """The shortest of as many calls as ``TIMING_SECONDS`` allow."""
    best, spent = math.inf, 0.0
    while spent < TIMING_SECONDS:
        start = time.perf_counter()
        action()
        seconds = time.perf_counter() - start
        best, spent = min(best, seconds), spent + seconds
    return best


def _noise(size: Size, count: int, device: torch.device) -> Dataset:
    """``count`` images to train on and as many to test."""
    generator = torch.Generator().manual_seed(0)
    channels = size.image_shape[0]

    images = torch.randint(256, (count, *size.image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.randint(size.num_classes, (count,), generator=generator)
    return Dataset(
        name="noise",
        train_images=images,
        train_labels=labels,
        test_images=images,
        test_labels=labels,
        classes=tuple(str(label) for label in range(size.num_classes)),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        crop_padding=0,
        flip=False,
        note="",
    ).to(device)
