"""Panels and tables of accuracy by learned slice, for two kinds of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.report.document import Picture, Table
from maskedconv.report.drawing import (
    Draw,
    PointStyle,
    accuracy_axis,
    draw,
    legend,
    ordered_labels,
    points,
    top_of,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    is_reference,
    sentence,
    setting_label,
)
from maskedconv.report.style import BLACK, FROZEN_COLOURS
from maskedconv.report.tables import (
    best,
    count,
    file_name,
    last,
    networks,
    order,
    pairs,
    percent_learned,
)
from maskedconv.runs.config import RunConfig

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Mark:
    """One kind of runs in a panel: its condition, name and style."""

    chosen: Callable[[RunConfig], bool]
    name: str
    colour: str
    marker: str
    hollow: bool = False


# Zeroed points are drawn first and larger, so that equal random points stay visible inside.
FROZEN_MARKS = (
    Mark(lambda run: run.frozen == "zero", "rest zeroed", FROZEN_COLOURS["zero"], "s", True),
    Mark(lambda run: run.frozen == "random", "rest random", FROZEN_COLOURS["random"], "o"),
)


def learned_panel(
    settings: list[SeedGroup], top: float, marks: Sequence[Mark] = FROZEN_MARKS
) -> Draw:
    """Accuracy of each setting of one network, with the kinds of ``marks`` side by side.

    ``top`` is the limit of the accuracy axis, so that the panels of a figure share it.
    """

    def panel(axes: Axes) -> None:
        partial = [s for s in settings if not is_reference(s.config)]
        labels = ordered_labels(partial)
        kinds = [
            {setting_label(s.config): s.best for s in partial if mark.chosen(s.config)}
            for mark in marks
        ]
        for x, label in enumerate(labels):
            means = [stat.mean for kind in kinds if (stat := kind.get(label)) is not None]
            if len(means) > 1:
                axes.plot([x, x], [min(means), max(means)], color="#c4c4c4", lw=3, zorder=1)
        for mark, kind in zip(marks, kinds, strict=True):
            stats = [kind.get(label) for label in labels]
            xs = range(len(labels))
            style = PointStyle(mark.colour, mark.marker, mark.name, mark.hollow)
            points(axes, xs, stats, style)
        lost = [x for x, label in enumerate(labels) if _failed(partial, label)]
        if lost:
            low = [0.03 * top] * len(lost)
            axes.scatter(lost, low, color=BLACK, marker="x", s=45, label="a run failed")
        reference = next((s.best for s in settings if is_reference(s.config) and s.best), None)
        if reference is not None:
            axes.axhline(reference.mean, color=BLACK, ls="--", lw=1.2, label="all weights")
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_xlim(-0.6, len(labels) - 0.4)
        accuracy_axis(axes, settings, top)
        legend(axes, columns=3 if lost else 4)

    return panel


def _failed(settings: Iterable[SeedGroup], label: str) -> bool:
    return any(s.failures for s in settings if setting_label(s.config) == label)


def learned_pictures(
    folder: Path, item: str, dataset: str, settings: list[SeedGroup]
) -> list[Picture]:
    """A panel of each network on ``dataset``, with a shared axis; ``item`` starts file names."""
    title, top = dataset_title(dataset), top_of(settings)
    return [
        draw(
            folder,
            file_name(item, dataset, name),
            name,
            learned_alt(name, title, group),
            learned_panel(group, top),
        )
        for name, group in networks(settings).items()
    ]


def learned_alt(name: str, dataset: str, settings: list[SeedGroup]) -> str:
    """Alternative text of the panel."""
    values = "; ".join(
        f"{setting_label(s.config)} {s.config.frozen} {best(s)}" for s in settings if s.best
    )
    return f"{name} on {dataset}, accuracy in percent: {values or 'nothing was run'}."


def learned_table(settings: list[SeedGroup]) -> Table:
    """Every setting of one data set, random and zeroed."""
    rows = []
    for name, group in networks(settings).items():
        for random, zero in pairs(sorted(group, key=order)):
            one = random or zero
            assert one is not None
            rows.append(
                [
                    name,
                    setting_label(one.config),
                    count(one.learned_parameters),
                    percent_learned(one),
                    best(random),
                    last(random),
                    *_zeroed(one, zero),
                ]
            )
    columns = ("network", "learned", "parameters", "fraction, %", "random, best", "random, last")
    return Table(
        f"{sentence(dataset_title(settings[0].config.dataset))}: top-1, %",
        (*columns, "zeroed, best", "zeroed, last"),
        rows,
        frozenset(range(2, 8)),
        grouped=True,
    )


def _zeroed(one: SeedGroup, zero: SeedGroup | None) -> tuple[str, str]:
    # With every weight learned, nothing is zeroed.
    return ("", "") if zero is None and is_reference(one.config) else (best(zero), last(zero))
