"""Table 1: only one part of the network is learned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.papers.rosenfeld2018.criteria import CLEAR, FAR, by_network
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import NOT_COMPARABLE, always, comparable
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import Draw, PointStyle, accuracy_axis, draw, legend, points, top_of
from maskedconv.report.item import Item
from maskedconv.report.measured import Measured, accuracy, exceeds, over_common_seeds
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    family,
    network_label,
    setting_label,
)
from maskedconv.report.short_tables import beside
from maskedconv.report.style import FAMILY_MARKS
from maskedconv.report.tables import (
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
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EPOCHS = 10
PARTS = ("bn", "conv1", "block1", "block2", "block3", "fc")

# Table 1: accuracy after 10 epochs of learning one part and every BatchNorm affine parameter.
TABLE1: dict[tuple[str, str], dict[str, float]] = {
    ("densenet_bc_100_12", "cifar10"): dict(
        zip(PARTS, (60.85, 64.76, 73.02, 72.95, 76.33, 68.63), strict=True)
    ),
    ("densenet_bc_100_12", "cifar100"): dict(
        zip(PARTS, (16.06, 15.08, 22.89, 28.00, 31.18, 33.43), strict=True)
    ),
    ("wrn_28_4", "cifar10"): dict(
        zip(PARTS, (30.2, 30.93, 61.19, 76.32, 74.31, 37.03), strict=True)
    ),
    ("wrn_28_4", "cifar100"): dict(
        zip(PARTS, (3.76, 3.67, 12.23, 25.07, 32.35, 10.31), strict=True)
    ),
}


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """Each part of the two networks alone."""
    return [
        recipe_run(preset, "table1", network, trained=trained, dataset=dataset, seed=seed)
        for seed in range(preset.seeds)
        for dataset in preset.datasets
        for network in (preset.densenet, preset.wrn)
        for trained in PARTS
    ]


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and tables, with the paper's numbers."""
    blocks: list[Block] = [
        Text(
            "BatchNorm's affine parameters and one part of the network are learned. The rest "
            f"is frozen at its random values. Accuracy after {epochs_text(settings)}."
        )
    ]
    pictures = []
    for dataset, here in datasets(settings).items():
        label = dataset_title(dataset)
        columns = list(networks(here).items())
        panel = parts_panel(columns, PARTS, top_of(here))
        alt = f"{label}: accuracy of every learned part, as in the table."
        pictures.append(draw(folder, file_name("table1", dataset), label, alt, panel))
    blocks.append(Figure("Accuracy of the best epoch.", pictures))
    known = [(setting, found) for setting in settings if (found := printed(setting)) is not None]
    captions = (
        (True, "compared with the paper's table 1"),
        (False, "not comparable with the paper's table 1 (10 epochs), shown for its order"),
    )
    for same, caption in captions:
        chosen = [
            setting
            for setting, (model, dataset, _) in known
            if comparable(setting, model, dataset, EPOCHS) == same
        ]
        if chosen:
            blocks.append(table1_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


def parts_panel(
    columns: list[tuple[str, list[SeedGroup]]], parts: Sequence[str], top: float
) -> Draw:
    """Table 1 as points: accuracy of each learned part, with one marker per network."""

    def panel(axes: Axes) -> None:
        for place, (name, settings) in enumerate(columns):
            colour, marker = FAMILY_MARKS[family(settings[0].config.model)]
            by_part = {s.config.trained: s.best for s in settings}
            xs = [x + 0.18 * (place - (len(columns) - 1) / 2) for x in range(len(parts))]
            stats = [by_part.get(part) for part in parts]
            points(axes, xs, stats, PointStyle(colour, marker, name))
        labels = ["BN" if part == "bn" else part for part in parts]
        axes.set_xticks(range(len(parts)), labels)
        axes.set_xlim(-0.6, len(parts) - 0.4)
        accuracy_axis(axes, [s for _, settings in columns for s in settings], top)
        legend(axes)

    return panel


def printed(setting: SeedGroup) -> tuple[str, str, float] | None:
    """Model, data set and accuracy of the closest entry in the paper's table 1."""
    config = setting.config
    dataset = "cifar100" if config.dataset == "cifar100" else "cifar10"
    for (model, data), numbers in TABLE1.items():
        if family(model) == family(config.model) and data == dataset and config.trained in numbers:
            return model, data, numbers[config.trained]
    return None


def table1_table(settings: list[SeedGroup], same: bool, caption: str) -> Table:
    """Learned parts with the difference to the paper if ``same``, else with its network."""
    rows = []
    for setting in settings:
        closest = printed(setting)
        if closest is None:
            continue
        model, dataset, number = closest
        source = f"{model}, {dataset_title(dataset)}"
        rows.append(
            [
                network_label(setting.config),
                dataset_title(setting.config.dataset),
                setting_label(setting.config),
                count(setting.learned_parameters),
                best(setting),
                last(setting),
                f"{number:.2f}",
                difference(setting.best, number) if same else source,
            ]
        )
    columns = ("network", "data", "learned", "parameters", "best", "last")
    theirs = ("paper", "difference") if same else (NOT_COMPARABLE, "paper's network")
    return Table(
        caption,
        (*columns, *theirs),
        rows,
        frozenset(range(3, 8)) if same else frozenset({3, 4, 5, 6}),
        grouped=True,
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""

    def theirs(setting: SeedGroup) -> tuple[str, float] | None:
        found = printed(setting)
        return None if found is None else (found[0], found[2])

    return [
        beside(f"Table 1, {dataset_title(dataset)}: learned besides BN", here, theirs)
        for dataset, here in datasets(settings).items()
    ]


def _parts(settings: list[SeedGroup]) -> Iterator[tuple[SeedGroup, dict[str, Measured]]]:
    for group in by_network(settings, ("densenet", "wrn")):
        accuracies = {s.config.trained: top1 for s in group if (top1 := accuracy(s)) is not None}
        yield group[0], accuracies


def bn_alone(settings: list[SeedGroup]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        if "bn" in top1 and setting.chance is not None:
            yield Case(
                named(setting.config),
                exceeds(top1["bn"].over(FAR * setting.chance)),
                f"{top1['bn']} against {setting.chance:g} % by chance",
            )


def block_beats_fc(settings: list[SeedGroup]) -> Iterator[Case]:
    for setting, top1 in _parts(settings):
        blocks = {part: top1[part] for part in ("block2", "block3") if part in top1}
        if "fc" in top1 and blocks:
            part = max(blocks, key=lambda name: blocks[name].value)
            block, fc = over_common_seeds(blocks[part], top1["fc"])
            yield Case(
                named(setting.config), exceeds(block - fc, CLEAR), f"{part} {block}, fc {fc}"
            )


CLAIMS = (
    Claim(
        "bn-alone",
        "Learning only BatchNorm's affine parameters gives far more than chance.",
        "table 1",
        f"DenseNet and WRN, BN only: at least {FAR:g} times chance.",
        bn_alone,
        families=("densenet", "wrn"),
    ),
    Claim(
        "block-beats-fc",
        "Learning a middle or late block is better than learning the classifier.",
        "table 1",
        f"DenseNet and WRN: the better of block2 and block3 exceeds fc by at least {CLEAR:g} "
        "points. (The paper's own table meets this in three of four columns: on CIFAR-100 "
        "DenseNet's fc is the best.)",
        block_beats_fc,
        families=("densenet", "wrn"),
    ),
)


ITEM = Item(
    "table1",
    "Only one part of the network is learned",
    "Table 1",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(EPOCHS),
    curves=True,
)
