"""Table 2: random against zeroed weights, fully trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from maskedconv.papers.rosenfeld2018 import fig5
from maskedconv.papers.rosenfeld2018.author_runs import full_run
from maskedconv.papers.rosenfeld2018.criteria import CLEAR, by_network, with_rest
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import NOT_COMPARABLE, comparable, full_epochs
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Table, Text
from maskedconv.report.item import Item
from maskedconv.report.measured import (
    accuracy,
    all_of,
    at_most,
    beside_printed,
    exceeds,
    near,
    over_common_seeds,
)
from maskedconv.report.results import (
    SeedGroup,
    dataset_title,
    family,
    is_reference,
    network_label,
    setting_label,
    signed,
)
from maskedconv.report.short_tables import beside, ordered
from maskedconv.report.tables import (
    best,
    count,
    datasets,
    difference,
    epochs_text,
    last,
    named,
    order,
)
from maskedconv.runs.config import RunConfig

# Table 2: full training on CIFAR-10, by learned fraction and kind of the rest.
_SPLITS = ((0.1, "random"), (0.1, "zero"), (0.4, "random"), (0.4, "zero"))
TABLE2: dict[str, dict[tuple[float, str], float]] = {
    "wrn_28_10": dict(zip(_SPLITS, (94.12, 91.53, 95.75, 95.49), strict=True)),
    "densenet_bc_100_12": dict(zip(_SPLITS, (88.73, 82.11, 93.33, 92.46), strict=True)),
}


TABLE2_FRACTIONS = (0.1, 0.4)
DATASET = "cifar10"


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """The runs of figure 5 on CIFAR-10, the first data set, that are in the paper's table 2."""
    return [
        run
        for run in fig5.runs(preset)
        if run.dataset == preset.datasets[0]
        and (run.learned in TABLE2_FRACTIONS or run.learns_all_slices)
    ]


def build(settings: list[SeedGroup], _folder: Path) -> list[Block]:
    """The table, beside the paper's."""
    blocks: list[Block] = [
        Text(
            "The runs of figure 5 that are in the paper's table 2, and the all-weights reference "
            "from the authors' stored runs (†). Accuracy of the best epoch after "
            f"{epochs_text(settings)}."
        )
    ]
    known = [(setting, found) for setting in settings if (found := printed(setting)) is not None]
    captions = (
        (True, "compared with the paper's table 2"),
        (
            False,
            "not comparable with the paper's table 2 (200 and 300 epochs), shown for its order",
        ),
    )
    for same, caption in captions:
        chosen = [
            (setting, theirs)
            for setting, theirs in known
            if comparable(setting, theirs[0], DATASET, full_epochs(setting.config)) == same
        ]
        if chosen:
            blocks.append(_table(chosen, same, f"Top-1, %, {caption}"))
    return blocks


def printed(setting: SeedGroup) -> tuple[str, float] | None:
    """Network and accuracy of the same family in table 2; for all weights, the authors' run."""
    config = setting.config
    for model, numbers in TABLE2.items():
        if family(model) == family(config.model):
            if is_reference(config):
                # Table 2 is on CIFAR-10 alone.
                theirs = full_run(replace(config, dataset=DATASET))
                return (model, theirs.top1) if theirs else None
            if isinstance(config.learned, float) and (config.learned, config.frozen) in numbers:
                return model, numbers[config.learned, config.frozen]
    return None


def _table(settings: list[tuple[SeedGroup, tuple[str, float]]], same: bool, caption: str) -> Table:
    rows = []
    for setting, (model, number) in sorted(settings, key=lambda pair: order(pair[0])):
        config = setting.config
        whole = is_reference(config)
        rows.append(
            [
                network_label(config),
                setting_label(config),
                "" if whole else "zeroed" if config.frozen == "zero" else "random",
                count(setting.learned_parameters),
                best(setting),
                last(setting),
                f"{number:.2f}{' †' if whole else ''}",
                difference(setting.best, number) if same else f"{model}, {dataset_title(DATASET)}",
            ]
        )
    columns = ("network", "learned", "rest", "parameters", "best", "last")
    theirs = ("paper", "difference") if same else (NOT_COMPARABLE, "paper's network")
    return Table(
        caption,
        (*columns, *theirs),
        sorted(rows, key=lambda row: row[0]),
        frozenset(range(3, 8)) if same else frozenset(range(3, 7)),
        grouped=True,
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""
    return [
        beside(
            f"Table 2, {dataset_title(dataset)} (all: the authors' stored runs)",
            ordered(here),
            printed,
        )
        for dataset, here in datasets(settings).items()
    ]


def tenth_full(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        whole = with_rest(group, "random").get("all")
        tenths = [with_rest(group, frozen).get("p = 0.1") for frozen in ("random", "zero")]
        needed = [setting for setting in (*tenths, whole) if setting is not None]
        tops = [top1 for setting in needed if (top1 := accuracy(setting)) is not None]
        found = [theirs for s in needed if (theirs := _comparable(s)) is not None]
        if len(tops) == len(found) == 3:
            random, zero, every = over_common_seeds(*tops)
            gap, theirs = every - random, found[2] - found[0]
            yield Case(
                named(group[0].config),
                all_of(
                    exceeds(random - zero),
                    near(random, found[0], CLEAR),
                    near(zero, found[1], CLEAR),
                    at_most(gap, CLEAR + theirs),
                ),
                f"random {beside_printed(random, found[0])}; zeroed "
                f"{beside_printed(zero, found[1])}; all weights minus random {signed(gap.value)} "
                f"(authors †: {signed(theirs)})",
            )


def _comparable(setting: SeedGroup) -> float | None:
    """The accuracy of the equal run in table 2; None if there is none."""
    theirs, epochs = printed(setting), full_epochs(setting.config)
    if theirs is None or not comparable(setting, theirs[0], DATASET, epochs):
        return None
    return theirs[1]


CLAIMS = (
    Claim(
        "tenth-full",
        "After full training, a tenth of the filters comes within a few points of all weights, and "
        "random is better than zeroed.",
        "table 2",
        "WRN-28-10 and DenseNet, p = 0.1: random exceeds zeroed, each accuracy is within "
        f"{CLEAR:g} points of the printed one, and random is at most {CLEAR:g} points farther "
        "below all weights than in the authors' stored runs (1.98 for WRN, 6.62 for DenseNet).",
        tenth_full,
        printed=True,
        named=tuple(f"{model}, {dataset_title(DATASET)}" for model in TABLE2),
    ),
)


ITEM = Item(
    "table2",
    "Random against zeroed weights, full runs",
    "Table 2",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=full_epochs,
)
