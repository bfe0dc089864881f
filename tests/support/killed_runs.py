"""Small runs for the tests; as a script, runs that are killed again and again until one is done.

``python killed_runs.py FOLDER``: forks a process for a run, which kills itself at a checkpoint, and
so on; prints a JSON object of optimizer to how often it was killed. A seed draws the moments.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from maskedconv.data import Dataset
from maskedconv.runs import RunConfig
from maskedconv.runs.execute import execute
from maskedconv.training.checkpoint import Checkpoint

MOST_WRITES = 12

SMALL = RunConfig(
    model="wrn_10_1",
    dataset="digits",
    learned=0.5,
    epochs=3,
    batch_size=8,
    lr=0.05,
    momentum=0.9,
    weight_decay=1e-3,
    milestones=(1,),
    gamma=0.1,
    dropout=0.3,
    seed=3,
    keep=True,
)
OPTIMIZERS = {
    "sgd": {},
    "adam": {"optimizer": "adam", "lr": 1e-3},
    "yellowfin": {"optimizer": "yellowfin", "momentum": 0.0},
}


def small_dataset() -> Dataset:
    """Random images of two classes, one of them brighter: 80 training and 30 test images."""
    generator = torch.Generator().manual_seed(0)

    def part(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = torch.arange(count) % 2
        images = torch.randint(0, 180, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
        return images + (60 * labels).to(torch.uint8)[:, None, None, None], labels

    train_images, train_labels = part(80)
    test_images, test_labels = part(30)
    return Dataset(
        name="brightness",
        train_images=train_images,
        train_labels=train_labels,
        test_images=test_images,
        test_labels=test_labels,
        classes=("dark", "bright"),
        mean=(0.4,),
        std=(0.2,),
        crop_padding=1,
        flip=True,
        note="random images",
    )


def die(*_: object) -> None:
    """Kills this process."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(write: int, moment: str) -> None:
    """Has this process kill itself before, amid or behind that write of a checkpoint, from 1."""
    plain, numbers = Checkpoint.write, itertools.count(1)

    def counted(checkpoint: Checkpoint, training: dict[str, Any]) -> None:
        if next(numbers) < write:
            plain(checkpoint, training)
            return
        if moment == "before":
            die()
        if moment == "amid":
            os.fsync = die  # the new file is written, but not in its place
        plain(checkpoint, training)
        die()

    Checkpoint.write = counted  # type: ignore[method-assign]


def kill_until_done(config: RunConfig, dataset: Dataset, folder: Path) -> int:
    """Runs ``config`` in processes that die at drawn moments; returns their number.

    A run has 30 writes, and a process makes at most ``MOST_WRITES``; two are killed at least.
    """
    kills, draw = 0, Random(0)
    while True:
        write, moment = draw.randint(1, MOST_WRITES), draw.choice(("before", "amid", "behind"))
        child = os.fork()
        if child == 0:
            die_at(write, moment)
            row = execute(config, dataset, folder=folder, checkpoint_seconds=0)
            os._exit(0 if row["status"] == "done" else 1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1
        assert kills < 100, "the processes make no progress"


if __name__ == "__main__":
    # A process with threads cannot fork.
    torch.set_num_threads(1)
    images, out = small_dataset(), Path(sys.argv[1])
    # Lazy imports happen before the processes are created.
    execute(replace(SMALL, keep=False), images, folder=out)
    kills = {
        name: kill_until_done(replace(SMALL, **changes), images, out)
        for name, changes in OPTIMIZERS.items()
    }
    print(json.dumps(kills))
