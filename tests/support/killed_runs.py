"""Small runs for the tests; as a script, runs that are killed at drawn moments until one is done.

``python killed_runs.py FOLDER``: forks a process for a run, which kills itself, and so on; prints a
JSON object of optimizer to how often its runs were killed. A moment is a number of calls of
functions, so that the same ones are drawn each time, on any machine.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch

from maskedconv.data import Dataset
from maskedconv.runs import RunConfig
from maskedconv.runs.checkpoints import remove_checkpoint
from maskedconv.runs.execute import execute

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


class Calls:
    """Counts calls of functions, given to ``sys.setprofile``; call ``last`` ends the process."""

    def __init__(self, last: int | None = None) -> None:
        self.count, self._last = 0, last

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            self.count += 1
            if self.count == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def calls_of(config: RunConfig, dataset: Dataset, folder: Path) -> int:
    """The number of calls of a run without imports, which happen in a first run."""
    for _ in range(2):
        remove_checkpoint(folder, config)
        calls = Calls()
        sys.setprofile(calls)
        execute(config, dataset, folder=folder, checkpoint_seconds=0)
        sys.setprofile(None)
    return calls.count


def kill_until_done(config: RunConfig, dataset: Dataset, folder: Path) -> int:
    """Runs ``config`` in processes that die at drawn moments; returns their number."""
    draw, calls = random.Random(0), calls_of(replace(config, keep=False), dataset, folder)
    kills = 0
    while True:
        # The first two die in any case. The moments come later each time, so that a run ends.
        last = draw.randint(1, calls // 3 + kills * calls // 20)
        child = os.fork()
        if child == 0:
            sys.setprofile(Calls(last))
            row = execute(config, dataset, folder=folder, checkpoint_seconds=0)
            os._exit(0 if row["status"] == "done" else 1)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return kills
        kills += 1


if __name__ == "__main__":
    # A process with threads cannot fork.
    torch.set_num_threads(1)
    images, out = small_dataset(), Path(sys.argv[1])
    kills = {
        name: kill_until_done(replace(SMALL, **changes), images, out)
        for name, changes in OPTIMIZERS.items()
    }
    print(json.dumps(kills))
