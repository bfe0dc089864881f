"""Sections for runs of ``train``, each by itself: results, curves, confusion, first filters."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, cast

from maskedconv.console import duration
from maskedconv.report.document import Block, Command, Figure, Picture, Section, Table, Text
from maskedconv.report.drawing import Draw, draw, legend
from maskedconv.report.filters import filters_panel
from maskedconv.report.results import Run, SeedGroup
from maskedconv.report.style import BLUE, ORANGE
from maskedconv.report.tables import NOTHING, count
from maskedconv.runs.row import EpochRow, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# With more classes, the numbers and names of a confusion matrix overlap.
_MOST_NUMBERS, _MOST_NAMES = 12, 30
_PARTS = (("train", ORANGE, "--"), ("test", BLUE, "-"))
_AXES = {"top1": "top-1, %", "loss": "loss"}


def sections(settings: Iterable[SeedGroup], folder: Path) -> list[Section]:
    """A section for each run; its panels are written to ``folder``."""
    runs = [run for setting in settings for run in setting.runs]
    return [_section(run, run.row, folder) for run in runs if run.row is not None]


def _section(run: Run, row: Row, folder: Path) -> Section:
    blocks: list[Block] = [_results(row)]
    if run.failed:
        blocks.append(Text(f"The run failed: {run.error}."))
    if run.history:
        blocks.append(_figure(run, row, folder))
    if "weights" in row:
        text = f"maskedconv.load_run({str(folder.parent)!r}, {run.config.key!r})"
        blocks.append(Command(text, "In Python, returns the network and its preprocessing"))
    return Section(run.config.key, run.config.label(), blocks)


def _results(row: Row) -> Table:
    memory = row.get("peak_memory_bytes")
    values = {
        "top-1 of the last epoch, %": _percent(row.get("last_top1")),
        "top-1 of the best epoch, %": _percent(row.get("best_top1")),
        "best epoch": str(row.get("best_epoch") or NOTHING),
        **{f"{name}, %": _percent(value) for name, value in row.get("measured", {}).items()},
        "learned parameters": count(row.get("learned_parameters")),
        "all parameters": count(row.get("total_parameters")),
        "training time": duration(row.get("seconds") or 0.0),
        "peak memory": f"{memory / 2**20:,.0f} MiB" if memory else NOTHING,
        "weights": row.get("weights", "not stored (train --keep stores them)"),
    }
    return Table("Results", ("", ""), [[name, value] for name, value in values.items()])


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _figure(run: Run, row: Row, folder: Path) -> Figure:
    key = run.config.key
    pictures = [_curve(folder, key, run.history, what) for what in _AXES]
    if matrix := row.get("confusion"):
        pictures.append(_confusion(folder, key, matrix, row.get("classes", [])))
    if first := row.get("first_layer"):
        filters, learned = first["shape"][0], first["learned"]
        alt = (
            f"The {filters} filters of the first convolution as images; the first {learned} are "
            "learned and framed."
        )
        title = f"{learned} of {filters} filters learned"
        pictures.append(draw(folder, f"filters-{key}", title, alt, filters_panel(first)))
    caption = "Accuracy and loss by epoch"
    caption += "; test images by true and predicted class" if row.get("confusion") else ""
    caption += "; filters of the first convolution, learned ones framed" if first else ""
    return Figure(f"{caption}.", pictures)


def _curve(folder: Path, key: str, history: list[EpochRow], what: str) -> Picture:
    def panel(axes: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        epochs = [epoch["epoch"] for epoch in history]
        for part, colour, line in _PARTS:
            values = [_number(epoch, f"{part}_{what}") for epoch in history]
            axes.plot(epochs, values, color=colour, ls=line, marker="o", ms=3, label=part)
        axes.set_xlabel("epoch")
        axes.set_ylabel(_AXES[what])
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend(axes)

    last = _number(history[-1], f"test_{what}")
    alt = f"{_AXES[what]} by epoch, in training and on the test images; the last is {last:.4g}."
    title = "Accuracy" if what == "top1" else "Loss"
    return draw(folder, f"{what}-{key}", title, alt, panel)


def _number(epoch: EpochRow, name: str) -> float:
    value = cast("dict[str, float | None]", epoch)[name]
    return math.nan if value is None else value


def _confusion(folder: Path, key: str, matrix: list[list[int]], classes: list[str]) -> Picture:
    right = sum(row[label] for label, row in enumerate(matrix))
    alt = (
        f"Confusion matrix of {sum(map(sum, matrix)):,} test images of {len(matrix)} classes: "
        f"{right:,} are on the diagonal, which is right."
    )
    panel = confusion_panel(matrix, classes)
    return draw(folder, f"confusion-{key}", "Test images by class", alt, panel)


def confusion_panel(matrix: list[list[int]], classes: list[str]) -> Draw:
    """Test images ``[C, C]`` by true and predicted class; shades are fractions of a true class."""
    import numpy as np

    counts = np.asarray(matrix)
    fractions = counts / counts.sum(1, keepdims=True).clip(1)

    def panel(axes: Axes) -> None:
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        if len(counts) <= _MOST_NUMBERS:
            for (true, predicted), number in np.ndenumerate(counts):
                if number:
                    colour = "white" if fractions[true, predicted] > 0.5 else "black"
                    axes.text(
                        predicted, true, str(number), color=colour, size=7, ha="center", va="center"
                    )
        places = range(len(classes)) if len(classes) <= _MOST_NAMES else []
        names = [classes[place] for place in places]
        axes.set_xticks(places, names, rotation=90, size=7)
        axes.set_yticks(places, names, size=7)
        axes.set_xlabel("predicted class")
        axes.set_ylabel("true class")
        axes.grid(visible=False)

    return panel
