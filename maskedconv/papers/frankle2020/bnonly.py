"""BN only: accuracy by depth and width of what is learned, and the learned scales."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskedconv.papers.frankle2020.criteria import CLAIMS
from maskedconv.papers.frankle2020.presets import EXPERIMENT, FranklePreset
from maskedconv.papers.frankle2020.printed import EPOCHS, comparable, full_epochs, printed
from maskedconv.papers.frankle2020.scales import scales, scales_panel
from maskedconv.papers.frankle2020.settings import (
    ALL,
    BN,
    SETTINGS,
    by_depth,
    by_width,
    fields_of,
    setting_of,
)
from maskedconv.report import short_tables as short
from maskedconv.report.document import Block, Figure, Picture, Table, Text
from maskedconv.report.drawing import Draw, PointStyle, accuracy_axis, draw, legend, points, top_of
from maskedconv.report.item import Item
from maskedconv.report.results import SeedGroup, dataset_title, network_label, sentence
from maskedconv.report.tables import (
    NOTHING,
    best,
    cell,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    last,
    networks,
    percent_learned,
)
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run, scaled_schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = dict[str, dict[float, SeedGroup]]
TOP5 = "top5"  # of a row's measured values; on photographs


def runs(preset: FranklePreset) -> list[RunConfig]:
    """Every setting of every network."""
    return [
        run
        for seed in range(preset.seeds)
        for dataset in preset.datasets
        for run in _runs(preset, {"dataset": dataset, "seed": seed})
    ]


def _runs(preset: FranklePreset, where: dict[str, Any]) -> Iterator[RunConfig]:
    from maskedconv.models import recipe

    for network in preset.networks:
        full = recipe(network.model)
        epochs = preset.epochs_of(EXPERIMENT, full.epochs)
        schedule = scaled_schedule(full.epochs, full.milestones, full.warmup, epochs)
        for setting in SETTINGS:
            fields = {**where, **schedule, **fields_of(setting, network)}
            yield recipe_run(preset, EXPERIMENT, network, **fields)


def build(groups: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels of accuracy and of γ, and tables, for each data set."""
    blocks: list[Block] = [
        Text(
            "Post-activation ResNets with random weights. All values that a setting does not name "
            "stay as they were drawn. The control learns as many weights as the network has γ and "
            f"β. Accuracy after {epochs_text(groups)}."
        )
    ]
    for dataset, here in datasets(groups).items():
        caption = f"{sentence(dataset_title(dataset))}. Accuracy of the best epoch."
        blocks += [
            Figure(caption, _accuracy_pictures(folder, dataset, here)),
            accuracy_table(here),
            *_scales_blocks(folder, dataset, here),
        ]
    known = [group for group in groups if printed(group)]
    captions = (
        (True, "compared with other sources on CIFAR-10"),
        (False, f"not comparable with other sources (CIFAR-10, {EPOCHS} epochs), for its order"),
    )
    for same, caption in captions:
        if chosen := [group for group in known if comparable(group) == same]:
            blocks.append(printed_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


def _accuracy_pictures(folder: Path, dataset: str, groups: list[SeedGroup]) -> list[Picture]:
    top, title = top_of(groups), dataset_title(dataset)
    pictures = []
    for axis, series in (("depth", by_depth(groups)), ("width", by_width(groups))):
        if series:
            alt = f"{title}: accuracy of every setting by {axis}, as in the table."
            panel = series_panel(series, axis, top)
            name = file_name(EXPERIMENT, dataset, axis)
            pictures.append(draw(folder, name, f"{title}, by {axis}", alt, panel))
    return pictures


def series_panel(series: Series, axis: str, top: float) -> Draw:
    """Accuracy of each setting on a logarithmic axis of depth or width."""
    from matplotlib.ticker import NullLocator

    def panel(axes: Axes) -> None:
        for setting in SETTINGS:
            found = series.get(setting.name, {})
            drawn = [(x, stat.mean) for x, group in found.items() if (stat := group.best)]
            axes.plot(*zip(*drawn, strict=True) if drawn else ((), ()), color=setting.colour, lw=1)
            stats = [group.best for group in found.values()]
            points(axes, found, stats, PointStyle(setting.colour, setting.marker, setting.name))
        places = sorted({x for found in series.values() for x in found})
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(places, [f"{x:g}" for x in places])
        axes.set_xlabel(axis)
        accuracy_axis(axes, [g for found in series.values() for g in found.values()], top)
        legend(axes, columns=3)

    return panel


def accuracy_table(groups: list[SeedGroup]) -> Table:
    """Every setting of one data set; with the top-5, where that was measured."""
    columns: dict[str, Callable[[SeedGroup], str]] = {
        "parameters": lambda group: count(group.learned_parameters),
        "fraction, %": percent_learned,
        "best": best,
        "last": last,
    }
    if any(group.measured(TOP5) for group in groups):
        columns["top-5, last"] = lambda group: cell(group, group.measured(TOP5))
    rows = [
        [name, setting_of(group.config).name, *(column(group) for column in columns.values())]
        for name, found in networks(groups).items()
        for group in found
    ]
    return Table(
        f"{sentence(dataset_title(groups[0].config.dataset))}: top-1, %",
        ("network", "learned", *columns),
        rows,
        frozenset(range(2, 2 + len(columns))),
        grouped=True,
    )


def _scales_blocks(folder: Path, dataset: str, groups: list[SeedGroup]) -> list[Block]:
    """Histograms of γ with BN only, and the fraction of small ones with BN only and everything."""
    pictures, rows = [], []
    for name, found in networks(groups).items():
        for group in found:
            setting = setting_of(group.config).name
            before, after = scales(group, "before"), scales(group, "after")
            if setting not in (BN, ALL) or before is None or after is None:
                continue
            shares = [f"{100 * part.fraction_small:.1f}" for part in (before, after)]
            rows.append([name, setting, count(sum(after.counts)), *shares])
            if setting == BN:
                alt = f"{name}: histogram of γ; {shares[0]} % small before, {shares[1]} % after."
                file = file_name(EXPERIMENT, dataset, "gamma", name)
                pictures.append(draw(folder, file, name, alt, scales_panel(before, after)))
    if not rows:
        return [Text(f"{dataset_title(dataset)}: no run with γ was finished.")]
    columns = ("network", "learned", "γ", "before, %", "after, %")
    return [
        Figure("γ of all BatchNorms before and after training, BN only.", pictures),
        Table("γ of absolute value below .01", columns, rows, frozenset(range(2, 5)), grouped=True),
    ]


def printed_table(groups: list[SeedGroup], same: bool, caption: str) -> Table:
    """Our accuracies beside those of other sources, with the difference if ``same``."""
    rows = [
        [
            network_label(group.config),
            setting_of(group.config).name,
            best(group),
            last(group),
            f"{number.top1:.2f}",
            number.source,
            difference(group.best, number.top1) if same else NOTHING,
        ]
        for group in groups
        for number in printed(group)
    ]
    columns = ("network", "learned", "best", "last", "theirs", "source", "difference")
    return Table(caption, columns, rows, frozenset({2, 3, 4, 6}), grouped=True)


def short_tables(groups: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""
    return [
        short.pivot(
            f"BN only, {dataset_title(dataset)}: what is learned",
            here,
            lambda group: network_label(group.config),
            lambda group: setting_of(group.config).name,
            lambda found: short.one(found[0]),
        )
        for dataset, here in datasets(groups).items()
    ]


ITEM = Item(
    EXPERIMENT,
    "Only γ and β are learned",
    "BatchNorm",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=full_epochs,
    curves=True,
)
