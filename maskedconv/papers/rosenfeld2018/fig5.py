"""Figure 5: full training runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskedconv.papers.rosenfeld2018.author_runs import compare, comparison, full_run
from maskedconv.papers.rosenfeld2018.criteria import CLEAR, by_network, with_rest
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import comparable, full_epochs
from maskedconv.papers.rosenfeld2018.runs import splits
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.item import Item
from maskedconv.report.learned import learned_pictures, learned_table
from maskedconv.report.measured import accuracy, beside_printed, near
from maskedconv.report.results import SeedGroup, dataset_title, sentence, setting_label
from maskedconv.report.short_tables import learned_tables
from maskedconv.report.tables import (
    NOTHING,
    best,
    datasets,
    epochs_text,
    named,
    order,
)
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run, scaled_schedule
from maskedconv.runs.preset import Network

# Section 4: full training with one filter in each layer.
ONE_FILTER = {
    ("densenet_bc_100_12", "cifar10"): 85.0,
    ("densenet_bc_100_12", "cifar100"): 59.7,
    ("wrn_28_10", "cifar10"): 69.0,
    ("wrn_28_10", "cifar100"): 34.85,
}


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """Every split of the two networks that are trained in full."""
    return [
        run
        for seed in range(preset.seeds)
        for dataset in preset.datasets
        for network in (preset.wide, preset.densenet)
        for run in _full_runs(preset, network, dataset, seed)
    ]


def _full_runs(
    preset: RosenfeldPreset, network: Network, dataset: str, seed: int
) -> Iterator[RunConfig]:
    from maskedconv.models import recipe

    found = recipe(network.model)
    epochs = preset.epochs_of("fig5", found.epochs)
    fields: dict[str, Any] = {
        "dataset": dataset,
        "seed": seed,
        **scaled_schedule(found.epochs, found.milestones, found.warmup, epochs),
    }
    for learned, frozen in splits([*preset.full_fractions, *preset.full_counts]):
        yield recipe_run(preset, "fig5", network, learned, frozen=frozen, **fields)
    # The recipe has dropout for the network that learns everything.
    yield recipe_run(preset, "fig5", network, dropout=found.dropout, **fields)


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and a table for each data set, and the authors' stored runs (†)."""
    blocks: list[Block] = [
        Text(
            "The paper trains with the full recipes (WRN-28-10 for 200 epochs, DenseNet for 300) "
            f"and lowers the learning rate in steps. These runs have {epochs_text(settings)}, with "
            "steps in proportion. The dashed line is the all-weights reference; for WRN-28-10 it "
            "has a dropout of 0.3, which the authors' commands gave to the "
            "split networks, too. The paper gives the best test epoch; the last epoch "
            "is given as well. For one filter per layer with a random rest, the paper's text has "
            "85 / 59.7 % (DenseNet) and 69 / 34.85 % (WRN-28-10) on CIFAR-10 / 100."
        )
    ]
    for dataset, here in datasets(settings).items():
        pictures = learned_pictures(folder, "fig5", dataset, here)
        caption = f"{sentence(dataset_title(dataset))}. Accuracy of the best epoch."
        blocks += [Figure(caption, pictures), learned_table(here)]
    # Not with the authors' first epochs, which would stand for their full runs.
    if compare(settings, "full"):
        return [*blocks, *comparison(settings, "full")]
    return [*blocks, _authors_table(settings)]


def _authors_table(settings: list[SeedGroup]) -> Table:
    rows = []
    for setting in sorted(settings, key=order):
        theirs = full_run(setting.config)
        if theirs is None:
            continue
        rows.append(
            [
                f"{theirs.model}, {dataset_title(theirs.dataset)}",
                setting_label(setting.config),
                NOTHING if setting_label(setting.config) == "all" else _REST[theirs.frozen],
                f"{theirs.top1:.2f}",
                best(setting),
                f"{setting.config.model}, {dataset_title(setting.config.dataset)}",
            ]
        )
    return Table(
        "The authors' full runs †, stored with their code: top-1, %. They are not comparable with "
        "ours and are shown for their order.",
        ("their network", "learned", "rest", "authors †", "ours", "our network"),
        sorted(rows, key=lambda row: row[0]),
        frozenset({3, 4}),
        grouped=True,
    )


_REST = {"random": "random", "zero": "zeroed"}


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """Tables for a README: networks in rows, slices in columns."""
    return learned_tables("Figure 5", settings)


def one_filter_full(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet", "wrn")):
        setting = with_rest(group, "random").get("k = 1")
        top1 = accuracy(setting)
        if setting is None or top1 is None:
            continue
        for (model, dataset), printed in ONE_FILTER.items():
            if comparable(setting, model, dataset, full_epochs(setting.config)):
                yield Case(
                    named(setting.config),
                    near(top1, printed, CLEAR),
                    beside_printed(top1, printed),
                )


CLAIMS = (
    Claim(
        "one-filter-full",
        "After full training, one filter per layer reaches 85 / 59.7 % (DenseNet) and 69 / "
        "34.85 % (WRN) on CIFAR-10 / 100.",
        "text, figure 5",
        f"Full runs, k = 1: within {CLEAR:g} points of the printed number.",
        one_filter_full,
        printed=True,
        named=tuple(f"{model}, {dataset_title(dataset)}" for model, dataset in ONE_FILTER),
    ),
)


ITEM = Item(
    "fig5",
    "Full training runs",
    "Figure 5",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=full_epochs,
    curves=True,
)
