"""Figure 2: the sliced dimension of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.papers.rosenfeld2018.author_runs import (
    LAST_CHANNELS,
    SPLIT_DENSENET,
    author_runs,
    comparison,
)
from maskedconv.papers.rosenfeld2018.criteria import CLEAR, SMALL, by_network, learns_little
from maskedconv.papers.rosenfeld2018.presets import RosenfeldPreset
from maskedconv.papers.rosenfeld2018.printed import always, comparable
from maskedconv.papers.rosenfeld2018.runs import splits
from maskedconv.report.claims import Case, Claim
from maskedconv.report.document import Block, Figure, Table, Text
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
from maskedconv.report.item import Item
from maskedconv.report.measured import accuracy, exceeds, over_common_seeds
from maskedconv.report.results import SeedGroup, dataset_title, setting_label, signed, split_label
from maskedconv.report.short_tables import label, ordered, pivot, random_zeroed, with_zeroed
from maskedconv.report.style import DIM_MARKS
from maskedconv.report.tables import (
    NOTHING,
    best,
    count,
    datasets,
    epochs_text,
    file_name,
    last,
    named,
    networks,
    one_network,
    order,
    pairs,
)
from maskedconv.runs.config import RunConfig
from maskedconv.runs.experiment import recipe_run
from maskedconv.slices import SLICE_DIMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def runs(preset: RosenfeldPreset) -> list[RunConfig]:
    """Every split along each of the four dimensions, for DenseNet."""
    return [
        recipe_run(
            preset,
            "fig2",
            preset.densenet,
            learned,
            slice_dim=slice_dim,
            frozen=frozen,
            # The paper's figure 2 uses CIFAR-10 only, the first data set.
            dataset=preset.datasets[0],
            seed=seed,
        )
        for seed in range(preset.seeds)
        for slice_dim in range(4)
        for learned, frozen in splits([*preset.slice_fractions, *preset.slice_counts])
    ]


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Panels and a table for each network, and the authors' runs."""
    blocks: list[Block] = [
        Text(
            "The learned slice can be taken along any of the weight's four dimensions: output "
            "filters (0), input channels (1), kernel rows (2) or columns (3). A 1×1 kernel has one "
            "row and one column, which are always learned, so that the same p or k learns more "
            "parameters there. A k beyond the kernel size learns the complete kernel. Accuracy "
            f"after {epochs_text(settings)}."
        ),
        Text(
            "Our networks have He initialisation, unless the configuration below says otherwise. "
            f"{SPLIT_DENSENET} With PyTorch's, five of our runs of DenseNet-BC-100-12 on CIFAR-10 "
            "are 1.5 to 5.6 points higher after one epoch. The authors' code learns the last "
            f"slices, and this package the first ones. {LAST_CHANNELS}"
        ),
    ]
    for dataset, here in datasets(settings).items():
        top = top_of(here)
        for name, group in networks(here).items():
            where = f"{name} on {dataset_title(dataset)}"
            pictures = []
            for frozen, title in (("random", "the rest random"), ("zero", "the rest zeroed")):
                chosen = [s for s in group if s.config.frozen == frozen]
                if chosen:
                    pictures.append(
                        draw(
                            folder,
                            file_name("fig2", dataset, name, frozen),
                            title,
                            f"{where}, {title}: accuracy by slice dimension, as in the table.",
                            slice_panel(chosen, top),
                        )
                    )
            blocks += [Figure(f"{where}. Accuracy of the best epoch.", pictures), fig2_table(group)]
    return [*blocks, *one_network(settings), *comparison(settings)]


def slice_panel(settings: list[SeedGroup], top: float) -> Draw:
    """Figure 2 for one kind of frozen weights: accuracy by setting and slice dimension."""

    def panel(axes: Axes) -> None:
        labels = ordered_labels(settings)
        names = {0: "filters (0)", 1: "input channels (1)", 2: "rows (2)", 3: "columns (3)"}
        for dim, (colour, marker) in DIM_MARKS.items():
            by_label = {setting_label(s.config): s for s in settings if s.config.slice_dim == dim}
            stats = [by_label[label].best if label in by_label else None for label in labels]
            xs = [x + 0.16 * (dim - 1.5) for x in range(len(labels))]
            points(axes, xs, stats, PointStyle(colour, marker, names[dim]))
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.6, len(labels) - 0.4)
        accuracy_axis(axes, settings, top)
        legend(axes, columns=3)

    return panel


def fig2_table(settings: list[SeedGroup]) -> Table:
    """Every slice of one network, and the authors' stored results for their network."""
    theirs = {
        (run.learned, isinstance(run.learned, int), run.slice_dim, run.frozen): f"{run.top1:.2f}"
        for run in author_runs()
        if run.run == "1 epoch"
    }
    same = all(comparable(setting, "densenet_bc_100_12", "cifar10", 1) for setting in settings)
    other = "" if same else " (not comparable)"
    # The only epoch is both the best and the last one.
    longer = any(setting.config.epochs > 1 for setting in settings)
    rows = []
    for random, zero in pairs(sorted(settings, key=order)):
        one = random or zero
        assert one is not None
        config = one.config
        split = (config.learned, isinstance(config.learned, int), config.slice_dim)
        rows.append(
            [
                f"{SLICE_DIMS[config.slice_dim]} ({config.slice_dim})",
                setting_label(config),
                count(one.learned_parameters),
                *(text for setting in (random, zero) for text in _best_and_last(setting, longer)),
                theirs.get((*split, "random"), NOTHING),
                theirs.get((*split, "zero"), NOTHING),
            ]
        )
    ours = ["random", "zeroed"]
    if longer:
        ours = [f"{rest}, {epoch}" for rest in ours for epoch in ("best", "last")]
    columns = ("slice", "learned", "parameters", *ours)
    return Table(
        "Top-1, %. The authors' numbers: DenseNet-BC-100-12, CIFAR-10, 1 epoch.",
        (*columns, f"authors{other}, random", f"authors{other}, zeroed"),
        rows,
        frozenset(range(2, len(columns) + 2)),
        grouped=True,
    )


def _best_and_last(setting: SeedGroup | None, longer: bool) -> list[str]:
    return [best(setting), last(setting)] if longer else [best(setting)]


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """The tables for a README."""
    found = []
    for dataset, here in datasets(settings).items():
        for name, group in networks(here).items():
            caption = (
                f"Figure 2, {name}, {dataset_title(dataset)}: rest random (zeroed); the authors': "
                "DenseNet-BC-100-12, CIFAR-10, 1 epoch"
            )
            ours = pivot(caption, ordered(group), label, _slice, random_zeroed)
            rows = [
                line
                for row in ours.rows
                for line in (row, [f"{row[0]}, authors", *_authors(row[0], ours.columns[1:])])
            ]
            found.append(replace(ours, rows=rows))
    return found


def _slice(setting: SeedGroup) -> str:
    return SLICE_DIMS[setting.config.slice_dim]


def _authors(label: str, slices: Sequence[str]) -> list[str]:
    """The authors' stored runs of one epoch, DenseNet-BC-100-12 on CIFAR-10."""
    top1 = {
        (SLICE_DIMS[run.slice_dim], run.frozen): f"{run.top1:.1f}"
        for run in author_runs()
        if run.run == "1 epoch" and split_label(run.learned) == label
    }
    return [
        with_zeroed(top1.get((name, "random"), NOTHING), top1.get((name, "zero"), NOTHING))
        for name in slices
    ]


def filters_beat_channels(settings: list[SeedGroup]) -> Iterator[Case]:
    for group in by_network(settings, ("densenet",)):
        random = [s for s in group if s.config.frozen == "random" and learns_little(s.config)]
        channels = {setting_label(s.config): s for s in random if s.config.slice_dim == 1}
        for setting in random:
            label = setting_label(setting.config)
            ours, theirs = accuracy(setting), accuracy(channels.get(label))
            if setting.config.slice_dim == 0 and ours is not None and theirs is not None:
                ours, theirs = over_common_seeds(ours, theirs)
                gap = ours - theirs
                yield Case(
                    f"{named(setting.config)}, {label}",
                    exceeds(gap, CLEAR),
                    f"filters {ours}, input channels {theirs}: {signed(gap.value)} points",
                )


CLAIMS = (
    Claim(
        "filters-best",
        "With few slices learned, output filters are better than input channels.",
        "figure 2",
        f"DenseNet, each setting with p ≤ {SMALL:g} or a number of slices, the rest random: "
        f"dimension 0 exceeds dimension 1 by at least {CLEAR:g} points.",
        filters_beat_channels,
    ),
)


ITEM = Item(
    "fig2",
    "The sliced dimension of the weights",
    "Figure 2",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
    printed_epochs=always(1),
)
