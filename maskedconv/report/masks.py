"""Panels and tables of runs whose layers have supermasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from maskedconv.report.document import Table
from maskedconv.report.drawing import Draw, PointStyle, accuracy_axis, legend, points
from maskedconv.report.results import SeedGroup, is_reference, network_label
from maskedconv.report.style import BLACK
from maskedconv.report.tables import NOTHING, best, count, last
from maskedconv.runs.config import Option, RunConfig
from maskedconv.runs.row import MaskRow

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Accuracies by their place on the x axis.
Points = Mapping[float, SeedGroup]


def method_option(config: RunConfig, name: str) -> Option | None:
    """A setting of the run's method; None if the run does not name it."""
    return dict(config.method_options).get(name)


def kept_fraction(config: RunConfig) -> float:
    """The fraction of weights that the masks of a run keep; 1 without masks."""
    k = method_option(config, "k")
    return float(k) if isinstance(k, float | int) else 1.0


def width_of(config: RunConfig) -> float:
    """The factor of the network's channels."""
    return float(dict(config.options).get("width", 1.0))


def masks_of(setting: SeedGroup) -> list[MaskRow]:
    """The masks of the first finished run; empty if there are none."""
    rows = (run.row.get("masks", []) for run in setting.runs if run.row is not None and run.done)
    return next(iter(rows), [])


def points_panel(
    series: Sequence[tuple[PointStyle, Points]],
    settings: Sequence[SeedGroup],
    label: str,
    top: float,
) -> Draw:
    """Accuracy of the best epoch against a number, with lines between the points of a series.

    A dashed line is the accuracy of the network whose weights are learned, if there is just one.

    Args:
        series: style and points of each kind of runs.
        settings: all settings of the panel.
        label: of the x axis.
        top: limit of the accuracy axis, in percent.
    """
    references = [s.best for s in settings if is_reference(s.config) and s.best]

    def panel(axes: Axes) -> None:
        for style, found in series:
            xs = sorted(x for x in found if found[x].best)
            means = [stat.mean for x in xs if (stat := found[x].best)]
            axes.plot(xs, means, color=style.colour, lw=1.2)
            points(axes, xs, [found[x].best for x in xs], style)
        if len(references) == 1:
            axes.axhline(references[0].mean, color=BLACK, ls="--", lw=1.2, label="weights learned")
        axes.set_xlabel(label)
        accuracy_axis(axes, settings, top)
        legend(axes, columns=3)

    return panel


def kept_table(
    caption: str, settings: Sequence[SeedGroup], kind: Callable[[RunConfig], str]
) -> Table:
    """Every setting: kept and all weights, accuracy of the best and of the last epoch.

    Args:
        kind: describes what a run learns, apart from the kept fraction.
    """
    rows = []
    for setting in settings:
        masks, config = masks_of(setting), setting.config
        kept = sum(mask["kept"] for mask in masks) if masks else None
        rows.append(
            [
                network_label(config),
                kind(config),
                NOTHING if is_reference(config) else f"{kept_fraction(config):g}",
                count(kept),
                count(setting.total_parameters),
                best(setting),
                last(setting),
            ]
        )
    columns = ("network", "learned", "k", "kept weights", "parameters", "best", "last")
    return Table(caption, columns, rows, frozenset(range(2, 7)), grouped=True)


def layer_table(caption: str, settings: Sequence[SeedGroup]) -> Table | None:
    """The fraction of each layer's weights that its mask, and one global threshold, keep."""
    rows = [
        [
            network_label(setting.config),
            mask["name"],
            f"{mask['size']:,}",
            f"{100 * mask['kept'] / mask['size']:.1f}",
            f"{100 * mask['kept_globally'] / mask['size']:.1f}",
        ]
        for setting in settings
        for mask in masks_of(setting)
    ]
    if not rows:
        return None
    columns = ("network", "layer", "weights", "kept, %", "kept by one threshold, %")
    return Table(caption, columns, rows, frozenset(range(2, 5)), grouped=True)
