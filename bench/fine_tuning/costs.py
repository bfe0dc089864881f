"""Costs of a way: its training step and its checkpoint."""

from __future__ import annotations

import multiprocessing
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from bench.fine_tuning.images import Setting
from bench.fine_tuning.ways import (
    CLASSES,
    WAYS,
    Way,
    build,
    learned_parameters,
    optimizer_of,
    restored,
    save,
    step_of,
)
from bench.saved_bytes import saved_bytes
from bench.timing import Samples, time_together
from maskedconv.runs.peak_memory import peak_resident

RATE = 1e-3
# Gradient and AdamW's two averages, in float32.
BYTES_OF_A_LEARNED_VALUE = 12


def costs(way: Way, setting: Setting) -> dict[str, int]:
    """Learned values; bytes that a step saves for backward, and its peak; bytes of the file.

    ``peak`` is the memory that forward and backward pass add to a new process, with the gradients
    and the optimizer's state.
    """
    learned = sum(parameter.numel() for parameter in learned_parameters(build(way, 0)))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        added = pool.apply(_peak, (way, setting))
    return {
        "learned": learned,
        "kept": _kept(way, setting),
        "peak": added + BYTES_OF_A_LEARNED_VALUE * learned,
        "file": file_bytes(way, setting),
    }


def times(setting: Setting, rounds: int) -> Samples:
    """Milliseconds of a training step of every way, round by round, in one process."""
    steps = {way.label: _step(way, setting)[0] for way in WAYS}
    return time_together(steps, "cpu", rounds, warmup=1)


def _step(way: Way, setting: Setting) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step of a full batch, and one of two images."""
    model, (images, labels) = build(way, 0), _example(setting)
    step = partial(step_of, model, optimizer_of(model, RATE))
    return partial(step, images, labels), partial(step, images[:2], labels[:2])


def _peak(way: Way, setting: Setting) -> int:
    torch.set_num_threads(1)
    step, small_step = _step(way, setting)
    # Allocates the gradients, the optimizer's state, and memory that PyTorch allocates once.
    small_step()
    before = peak_resident()
    step()
    return peak_resident() - before


def _kept(way: Way, setting: Setting) -> int:
    model, (images, labels) = build(way, 0), _example(setting)
    own = [*model.parameters(), *model.buffers()]
    return saved_bytes(lambda: F.cross_entropy(model(images), labels), own)


def file_bytes(way: Way, setting: Setting) -> int:
    """Bytes of the files after a training step.

    Raises:
        RuntimeError: another network with these files has another output.
    """
    model, (images, labels) = build(way, 0), _example(setting)
    step_of(model, optimizer_of(model, RATE), images, labels)
    with tempfile.TemporaryDirectory() as folder:
        size = save(model.eval(), Path(folder))
        again = restored(way, Path(folder))
    with torch.inference_mode():
        if not torch.equal(model(images), again(images)):
            raise RuntimeError(f"{way.label}: the files do not restore the network")
    return size


def _example(setting: Setting) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (setting.batch, 3, setting.size, setting.size)
    images = torch.randn(shape, generator=generator).to(memory_format=torch.channels_last)
    return images, torch.randint(CLASSES, (setting.batch,), generator=generator)
