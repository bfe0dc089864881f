"""Figure 6: magnitudes of learned and frozen weights per convolution, and the first filters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from maskedconv.papers.rosenfeld2018 import table3
from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import Draw, draw, legend, log_ticks
from maskedconv.report.filters import filters_panel
from maskedconv.report.item import Item
from maskedconv.report.results import SeedGroup, dataset_title
from maskedconv.report.style import BLUE, RED
from maskedconv.report.tables import NOTHING, datasets, file_name, networks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Axis label of each statistic in a row.
STATISTICS = {"mean_abs": "mean |w|", "variance": "variance of w"}
_PARTS = (("frozen", "frozen", RED, "s", True), ("learned", "learned", BLUE, "o", False))


@dataclass(frozen=True)
class Layer:
    """One convolution: statistics by part, averaged over seeds; missing parts are absent."""

    name: str
    learned: dict[str, float] | None
    frozen: dict[str, float] | None


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels for each statistic, the filters of the first layers, and a table of medians."""
    blocks: list[Block] = [
        Text(
            "The weights of table 3's networks after training: mean |w| and variance of each "
            "convolution, on a logarithmic axis, for the learned and the frozen part. One panel "
            "per learned fraction."
        )
    ]
    for dataset, here in datasets(settings).items():
        for name, group in networks(here).items():
            kept = [s for s in sorted(group, key=lambda s: s.config.learned) if layers(s)]
            where = f"{name}, {dataset_title(dataset)}"
            if not kept:
                blocks.append(Text(f"{where}: no run with weights was finished."))
                continue
            for statistic, label in STATISTICS.items():
                limits = _limits(kept, statistic)
                pictures = [_layers_picture(folder, s, where, statistic, limits) for s in kept]
                blocks.append(Figure(f"{where}: {label} of each layer.", pictures))
            blocks += [_filters_figure(folder, kept, where), _table(where, kept)]
    return blocks


def layers(setting: SeedGroup) -> list[Layer]:
    """The convolutions of a setting in the network's order; empty if no weights were stored."""
    rows = [row["layers"] for row in setting.rows if row.get("layers")]
    return [
        Layer(
            same[0]["name"],
            _mean([layer.get("learned") for layer in same]),
            _mean([layer.get("frozen") for layer in same]),
        )
        for same in zip(*rows, strict=True)
    ]


def _mean(parts: Sequence[dict[str, float] | None]) -> dict[str, float] | None:
    there = [part for part in parts if part and part["count"]]
    if not there:
        return None
    return {name: fmean(part[name] for part in there) for name in STATISTICS}


def _values(found: list[Layer], part: str, statistic: str) -> list[tuple[int, float]]:
    """(index from 1, value) of the layers with the part, without zeros, which have no logarithm."""
    return [
        (place, values[statistic])
        for place, layer in enumerate(found, start=1)
        if (values := getattr(layer, part)) is not None and values[statistic] > 0
    ]


def _limits(settings: list[SeedGroup], statistic: str) -> tuple[float, float]:
    values = [
        value
        for setting in settings
        for part, *_ in _PARTS
        for _, value in _values(layers(setting), part, statistic)
    ]
    return (min(values) / 1.5, max(values) * 1.5) if values else (0.1, 1.0)


def _layers_picture(
    folder: Path, setting: SeedGroup, where: str, statistic: str, limits: tuple[float, float]
) -> Picture:
    found, label = layers(setting), STATISTICS[statistic]
    ranges = []
    for part, name, *_ in _PARTS:
        if values := [value for _, value in _values(found, part, statistic)]:
            ranges.append(f"{name} from {min(values):.2g} to {max(values):.2g}")
    alt = (
        f"{where}, {_percent(setting)} of the filters learned: {label} of {len(found)} "
        f"convolutions, {'; '.join(ranges)}."
    )
    file = file_name("fig6", setting.config.dataset, statistic, f"{setting.config.learned:g}")
    panel = layers_panel(found, statistic, limits)
    return draw(folder, file, f"{_percent(setting)} learned", alt, panel)


def layers_panel(found: list[Layer], statistic: str, limits: tuple[float, float]) -> Draw:
    """A statistic of each convolution on a log axis, for learned and frozen weights."""
    from matplotlib.ticker import StrMethodFormatter

    def panel(axes: Axes) -> None:
        for part, label, colour, marker, hollow in _PARTS:
            if there := _values(found, part, statistic):
                xs, ys = zip(*there, strict=True)
                face = "white" if hollow else colour
                axes.plot(xs, ys, color=colour, marker=marker, ms=5, mfc=face, lw=1, label=label)
        axes.set_yscale("log")
        log_ticks(axes.yaxis, StrMethodFormatter("{x:g}"))
        axes.set_ylim(*limits)
        axes.set_xlim(0.3, len(found) + 0.7)
        axes.set_xlabel("convolution, from input to output")
        axes.set_ylabel(STATISTICS[statistic])
        legend(axes)

    return panel


def _filters_figure(folder: Path, settings: list[SeedGroup], where: str) -> Figure:
    pictures = []
    for setting in settings:
        first = next((row["first_layer"] for row in setting.rows if row.get("first_layer")), None)
        if first is None:
            continue
        filters, learned = first["shape"][0], first["learned"]
        alt = (
            f"{where}, {_percent(setting)} of the filters learned: the {filters} filters of the "
            f"first convolution as images; the first {learned} are learned and framed."
        )
        file = file_name("fig6", setting.config.dataset, "filters", f"{setting.config.learned:g}")
        title = f"{_percent(setting)}: {learned} of {filters} filters"
        pictures.append(draw(folder, file, title, alt, filters_panel(first)))
    return Figure(
        f"{where}: filters of the first convolution after training (first seed). Learned "
        "filters have a frame with a dot. Grey is zero; each picture has one scale.",
        pictures,
    )


def _percent(setting: SeedGroup) -> str:
    return f"{100 * setting.config.learned:g} %"


def _table(where: str, settings: list[SeedGroup]) -> Table:
    rows = []
    for setting in settings:
        found = layers(setting)
        for statistic, label in STATISTICS.items():
            learned, fixed = (
                [value for _, value in _values(found, part, statistic)]
                for part in ("learned", "frozen")
            )
            ratios = [
                layer.learned[statistic] / layer.frozen[statistic]
                for layer in found
                if layer.learned and layer.frozen and layer.frozen[statistic] > 0
            ]
            rows.append(
                [_percent(setting), label, *(_median(part) for part in (learned, fixed, ratios))]
            )
    return Table(
        f"{where}: medians over the convolutions",
        ("learned", "statistic", "learned weights", "frozen weights", "learned / frozen"),
        rows,
        frozenset(range(2, 5)),
        grouped=True,
    )


def _median(values: list[float]) -> str:
    return f"{median(values):.3g}" if values else NOTHING


ITEM = Item(
    "fig6",
    "Magnitudes of learned and frozen weights per layer",
    "Figure 6",
    table3.runs,
    build,
    printed_epochs=table3.ITEM.printed_epochs,
)
