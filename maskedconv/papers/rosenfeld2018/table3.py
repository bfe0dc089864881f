"""Table 3: a larger data set, learned with YellowFin."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from maskedconv import data
from maskedconv.papers.rosenfeld2018.criteria import by_network
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import always, comparable
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import Draw, PointStyle, accuracy_axis, draw, legend, points, top_of
from maskedconv.report.item import Item
from maskedconv.report.measured import accuracy, exceeds, over_common_seeds
from maskedconv.report.results import (
    SeedGroup,
    Stat,
    dataset_title,
    network_label,
    sentence,
)
from maskedconv.report.short_tables import beside, ordered
from maskedconv.report.style import BLUE, ORANGE
from maskedconv.report.tables import (
    NOTHING,
    best,
    count,
    datasets,
    difference,
    epochs_text,
    file_name,
    last,
    named,
    networks,
)
from maskedconv.runs.config import Option, RunConfig
from maskedconv.runs.experiment import recipe_run, scaled_schedule

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Table 3: WRN-28-4 on Tiny-ImageNet, by learned fraction: accuracy, and number of learned
# parameters with a classifier of TABLE3_CLASSES classes.
TABLE3 = {
    0.1: (21.75, 829_027),
    0.4: (30.13, 2_588_682),
    0.7: (33.22, 4_339_633),
    1.0: (35.54, 6_103_480),
}
TABLE3_CLASSES = 1000


# Table 3's settings with the authors' YellowFin, whose momentum starts at 0.
TINY_EPOCHS, TINY_MILESTONES = 45, (15, 30)
TINY_RECIPE = MappingProxyType({"optimizer": "yellowfin", "lr": 0.1, "momentum": 0.0, "gamma": 0.1})
MODEL, DATASET = "wrn_28_4", "tiny-imagenet"


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """Each fraction of WRN on the larger data set; the weights are stored for figure 6."""
    epochs = preset.epochs_of("table3", TINY_EPOCHS)
    return [
        recipe_run(
            preset,
            "table3",
            preset.wrn,
            learned,
            dataset=preset.tiny_dataset,
            epochs=epochs,
            subset=preset.tiny_subset,
            keep=True,
            seed=seed,
            **scaled_schedule(TINY_EPOCHS, TINY_MILESTONES, 0, epochs),
            **TINY_RECIPE,
        )
        for seed in range(preset.seeds)
        for learned in preset.tiny_fractions
    ]


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """A panel and a table for each network and data set, with the paper's numbers."""
    blocks: list[Block] = [
        Text(
            "10, 40, 70 and 100 % of the filters are learned, and the rest is random. The paper "
            "trains WRN-28-4 on 64×64 pixels for 45 epochs with YellowFin at 0.1, lowered tenfold "
            f"after epochs 15 and 30. These runs have {epochs_text(settings)}, with steps in "
            "proportion. As in the published YellowFin, 0.1 is the rate of the first step only; "
            "the schedule multiplies the rate that YellowFin then tunes."
        ),
        Text(
            "The paper counts parameters with a classifier of 1000 classes, although Tiny-ImageNet "
            "has 200. Our classifier has the classes of the data set; the count with 1000 classes "
            "is given as well. The authors' code crops images of this size without padding, and "
            "normalises them by ImageNet's mean and deviation; these runs pad the crops by twice "
            "CIFAR's padding, and take mean and deviation from the training images."
        ),
    ]
    for dataset, here in datasets(settings).items():
        for name, group in networks(here).items():
            whole = all(comparable(setting, MODEL, DATASET, TINY_EPOCHS) for setting in group)
            blocks += [_figure(group, dataset, name, whole, folder), _table(group, whole)]
            if not all(setting.whole_data for setting in group):
                blocks.append(Text("Trained on part of the images only."))
    return blocks


def _figure(settings: list[SeedGroup], dataset: str, name: str, same: bool, folder: Path) -> Figure:
    where = f"{name} on {dataset_title(dataset)}"
    values = "; ".join(f"{_percent(s)} {best(s)}" for s in _fractions(settings))
    picture = draw(
        folder,
        file_name("table3", dataset, name),
        sentence(dataset_title(dataset)),
        f"{where}, accuracy in percent by learned fraction: {values}.",
        fractions_panel(settings, same),
    )
    return Figure(f"{where}. Accuracy of the best epoch.", [picture])


def _fractions(settings: list[SeedGroup]) -> list[SeedGroup]:
    return sorted(settings, key=lambda setting: setting.config.learned)


def _percent(setting: SeedGroup) -> str:
    return f"{100 * setting.config.learned:g} %"


def fractions_panel(settings: list[SeedGroup], same: bool) -> Draw:
    """Accuracy by learned fraction, with the paper's accuracy if the runs are the same."""

    def panel(axes: Axes) -> None:
        ordered = _fractions(settings)
        xs = range(len(ordered))
        top = top_of(settings)
        if same:
            theirs = [TABLE3.get(float(s.config.learned)) for s in ordered]
            stats = [Stat(found[0], None, 1) if found else None for found in theirs]
            top = max(top, 40.0)
            points(axes, xs, stats, PointStyle(ORANGE, "s", "paper", hollow=True))
        points(axes, xs, [s.best for s in ordered], PointStyle(BLUE, "o", "ours"))
        axes.set_xticks(xs, [_percent(s) for s in ordered])
        axes.set_xlim(-0.6, len(ordered) - 0.4)
        axes.set_xlabel("filters learned")
        accuracy_axis(axes, settings, top)
        legend(axes)

    return panel


def _table(settings: list[SeedGroup], same: bool) -> Table:
    rows = []
    for setting in _fractions(settings):
        top1, parameters = TABLE3.get(float(setting.config.learned), (None, None))
        rows.append(
            [
                network_label(setting.config),
                _percent(setting),
                count(setting.learned_parameters),
                count(with_1000_classes(setting)),
                count(parameters),
                best(setting),
                last(setting),
                NOTHING if top1 is None else f"{top1:.2f}",
                *([difference(setting.best, top1)] if same else []),
            ]
        )
    other = "" if same else " (WRN-28-4, Tiny-ImageNet)"
    columns = (
        "network",
        "learned",
        "parameters",
        "with 1000 classes",
        f"paper's{other}",
        "best",
        "last",
        f"paper{other}",
    )
    caption = f"{'' if same else 'not '}comparable with the paper's table 3"
    return Table(
        f"Top-1, %, {caption}",
        (*columns, "difference") if same else columns,
        rows,
        frozenset(range(2, 9)),
    )


def with_1000_classes(setting: SeedGroup) -> int | None:
    """Learned parameters if the classifier had the paper's number of classes; None if unknown."""
    learned, config = setting.learned_parameters, setting.config
    classes = data.describe(config.dataset).num_classes
    if learned is None or classes is None:
        return None
    per_class = _classifier_inputs(config.model, config.options) + 1
    return learned + (TABLE3_CLASSES - classes) * per_class


@cache
def _classifier_inputs(model: str, options: tuple[tuple[str, Option], ...]) -> int:
    from maskedconv import models

    arguments: dict[str, Any] = dict(options)
    fc: Any = models.create(model, **arguments).fc
    return int(fc.in_features)


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""

    def theirs(setting: SeedGroup) -> tuple[str, float] | None:
        found = TABLE3.get(float(setting.config.learned))
        return None if found is None else ("wrn_28_4, Tiny-ImageNet", found[0])

    return [
        beside(f"Table 3, {dataset_title(dataset)}", ordered(here), theirs)
        for dataset, here in datasets(settings).items()
    ]


def rises_with_fraction(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, ("wrn",)):
        known = {
            setting.config.learned: top1
            for setting in group
            if isinstance(setting.config.learned, float) and (top1 := accuracy(setting)) is not None
        }
        for small, large in pairwise(sorted(known)):
            less, more = over_common_seeds(known[small], known[large])
            yield Case(
                f"{named(group[0].config)}, {100 * small:g} % to {100 * large:g} %",
                exceeds(more - less),
                f"{less} and {more}",
            )


CLAIMS = (
    Claim(
        "tiny-imagenet",
        "The more is learned, the better: 10 % < 40 % < 70 % < 100 % (in the paper on "
        "Tiny-ImageNet).",
        "table 3",
        "Accuracy rises from each fraction to the next, on the data set that was run.",
        rises_with_fraction,
    ),
)


ITEM = Item(
    "table3",
    "Tiny-ImageNet",
    "Table 3",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(TINY_EPOCHS),
    curves=True,
)
