"""Costs of a switch between two tasks, and of a batch of several.

``python -m bench.tasks`` prints Markdown tables for ResNet-50 with a tenth of its filters learned;
``--save`` writes them to ``results/tasks.md``.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles

import torch
import torchvision
from torch import Tensor, nn

from bench.results import FOLDER
from maskedconv import Tasks, convert_, count_parameters, load

LEARNED = 0.1
BATCH, SIZE = 8, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--save", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = _tasks(BATCH)
    lines = [
        "# Many tasks over one ResNet-50",
        "",
        "`python -m bench.tasks`: torchvision's ResNet-50, a tenth of the filters learned, heads "
        f"of 100 classes, on {platform.machine()}, torch {torch.__version__}, one thread of a "
        "machine with other work. The time of a switch is wall time, that of a batch the "
        "processor's.",
        "",
        _sizes(tasks),
        "",
        *_switches(tasks, arguments.switches),
        "",
        *_batches(tasks, arguments.rounds),
    ]
    print(text := "\n".join(lines))
    if arguments.save:
        (FOLDER / "tasks.md").write_text(f"{text}\n")


def _tasks(count: int) -> Tasks:
    torch.manual_seed(0)
    tasks = Tasks(convert_(torchvision.models.resnet50(), learned=LEARNED), head="fc")
    for index in range(count):
        tasks.add(f"task {index}", head=nn.Linear(2048, 100), seed=index)
    return tasks.eval()


def _sizes(tasks: Tasks) -> str:
    name = tasks.names[0]
    with tempfile.TemporaryDirectory() as folder:
        tasks.save(name, file := Path(folder) / "task")
        stored = file.stat().st_size
    own, total = tasks.nbytes(name), 4 * count_parameters(tasks.model).total
    return (
        f"A task has {own / 1e6:.2f} MB of its own, and its file {stored / 1e6:.2f} MB; the model "
        f"has {total / 1e6:.1f} MB of parameters."
    )


def _switches(tasks: Tasks, count: int) -> Iterator[str]:
    yield "| switch between two tasks | ms, median | ms, 95 of 100 |"
    yield "|---|---|---|"
    names = cycle(tasks.names[:2])
    yield _row(f"`tasks.set`, {count} times", _times(lambda: tasks.set(next(names)), count))
    states = cycle([_learned_state(tasks, name) for name in tasks.names[:2]])
    copied = _times(lambda: tasks.model.load_state_dict(next(states), strict=False), 20)
    yield _row("copies by `load_state_dict`", copied)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in tasks.names[:2]]
        for file in files:
            tasks.save(file.name, file)
        turn = cycle(files)
        yield _row("files by `maskedconv.load`", _times(lambda: load(tasks.model, next(turn)), 20))


def _learned_state(tasks: Tasks, name: str) -> dict[str, Tensor]:
    with tasks.using(name):
        state = tasks.model.state_dict()
        return {key: copy.copy(one) for key, one in state.items() if not key.endswith("frozen")}


def _times(run: Callable[[], object], count: int) -> list[float]:
    """Milliseconds of each call, after two that do not count."""
    found = []
    for _ in range(count + 2):
        start = time.perf_counter()
        run()
        found.append(1000 * (time.perf_counter() - start))
    return found[2:]


def _row(name: str, times: list[float]) -> str:
    return f"| {name} | {median(times):.3f} | {quantiles(times, n=20)[-1]:.3f} |"


@torch.no_grad()
def _batches(tasks: Tasks, rounds: int) -> Iterator[str]:
    yield f"| ms for {BATCH} images of {SIZE}x{SIZE}, in evaluation | 2 tasks | 4 tasks | 8 tasks |"
    yield "|---|---|---|---|"
    images = torch.randn(BATCH, 3, SIZE, SIZE)
    found = [_together(tasks, images, count, rounds) for count in (2, 4, 8)]
    for name in found[0]:
        cells = " | ".join(f"{median(times[name]):.0f}" for times in found)
        yield f"| {name} | {cells} |"


def _together(tasks: Tasks, images: Tensor, count: int, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of the processor in each round, in which each way runs once."""
    ids = [tasks.names[index % count] for index in range(len(images))]

    def one_by_one() -> None:
        for index, name in enumerate(tasks.names[:count]):
            with tasks.using(name):
                tasks(images[index::count])

    runs: dict[str, Callable[[], object]] = {
        "`tasks(images, task_ids=ids)`": lambda: tasks(images, task_ids=ids),
        "one task after another": one_by_one,
        "all images of one task": lambda: tasks(images),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            start = time.process_time()
            run()
            if index:
                found[name].append(1000 * (time.process_time() - start))
    return found


if __name__ == "__main__":
    main()
