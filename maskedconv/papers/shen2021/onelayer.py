"""One-layer lottery tickets: their section of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskedconv.papers.shen2021 import printed
from maskedconv.papers.shen2021.claims import CLAIMS
from maskedconv.papers.shen2021.presets import KEPT
from maskedconv.papers.shen2021.runs import (
    KINDS,
    OWN,
    SHARED,
    TRAINED,
    UNTRAINED,
    kept,
    kind,
    runs,
    translates,
)
from maskedconv.report.document import Block, Figure, Table, Text
from maskedconv.report.drawing import Draw, PointStyle, draw, legend, points
from maskedconv.report.item import Item
from maskedconv.report.results import SeedGroup, Stat, dataset_title
from maskedconv.report.style import BLUE, GREEN, GREY, RED
from maskedconv.report.tables import NOTHING, best, cell, count, datasets, epochs_text, file_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LINES = ((TRAINED, GREY, "--"), (OWN, GREEN, "-."), (UNTRAINED, RED, ":"))


def build(settings: list[SeedGroup], folder: Path) -> list[Block]:
    """Tables of the Transformer and the ResNet, pictures, and the paper's numbers."""
    words = [setting for setting in settings if translates(setting.config)]
    images = [setting for setting in settings if not translates(setting.config)]
    return [
        Text(
            "A score for each weight of a random network is learned, and the weights with the best "
            "scores are used. In the one-layer network, all layers of the encoder share one frozen "
            "weight for each role (queries, keys, values, output, and both feed-forward layers), "
            "and so do the decoder's; each layer has a mask of its own. The task is number words, "
            "from each of English, German and French into each other, of numbers that were not in "
            f"the training set, after {epochs_text(_learned(words))}. Exact match is the fraction "
            "of numbers that greedy decoding translates without a wrong token."
        ),
        *(_words_table(name, here) for name, here in datasets(words).items()),
        *_figures(words, folder),
        _bytes_text(),
        *(_images_table(name, here) for name, here in datasets(images).items()),
        _printed_table(),
    ]


def _learned(settings: list[SeedGroup]) -> list[SeedGroup]:
    return [setting for setting in settings if kind(setting.config) != UNTRAINED]


def _words_table(dataset: str, settings: list[SeedGroup]) -> Table:
    rows = [
        [*_described(s), best(s), cell(s, s.measured("token_accuracy")), *_sizes(s)]
        for s in settings
    ]
    caption = f"{dataset_title(dataset)}, % of the test pairs (exact match: best epoch)"
    columns = ("exact match", "right tokens, last epoch")
    return Table(caption, (*_COLUMNS, *columns, *_SIZES), rows, frozenset(range(2, 8)), True)


def _images_table(dataset: str, settings: list[SeedGroup]) -> Table:
    rows = [[*_described(s), best(s), *_sizes(s)] for s in settings]
    caption = (
        f"{dataset_title(dataset)}, top-1 in % of the best epoch after {epochs_text(settings)}: "
        "ResNets, whose blocks of a stage share weights in the last row (hidden-fold networks)"
    )
    return Table(caption, (*_COLUMNS, "top-1", *_SIZES), rows, frozenset(range(2, 7)), True)


_COLUMNS = ("network", "weights", "kept")
_SIZES = ("learned weights or scores", "bytes stored", "bytes in memory")


def _described(setting: SeedGroup) -> list[str]:
    config = setting.config
    fraction = f"{kept(config):g}" if kind(config) != TRAINED else NOTHING
    return [config.model, KINDS[kind(config)], fraction]


def _sizes(setting: SeedGroup) -> list[str]:
    sizes = setting.inference_bytes
    learned = 0 if kind(setting.config) == UNTRAINED else setting.learned_parameters
    numbers = (sizes["stored"], sizes["in_memory"]) if sizes else (None, None)
    return [count(learned), *map(count, numbers)]


def _bytes_text() -> Text:
    return Text(
        "Bytes are those that inference needs. Stored: 4 for each learned weight, one bit for each "
        "weight of a mask, BatchNorm's statistics, and one seed of 8 bytes for all random weights. "
        "In memory: the random weights instead of the seed, 4 bytes each; a shared one counts once."
    )


def _figures(words: list[SeedGroup], folder: Path) -> list[Block]:
    pictures = []
    for dataset, here in datasets(words).items():
        sizes = [s for s in here if kind(s.config) != SHARED]
        network = sizes[0].config.model if sizes else here[0].config.model
        panels: list[tuple[str, str, Draw]] = [
            ("kept", "fraction of the weights that is kept", _by_kept(here, network))
        ]
        if len({s.config.model for s in here}) > 1:
            panels.append(("depth", "layers of encoder and decoder", _by_depth(here)))
        for name, label, panel in panels:
            alt = f"{dataset_title(dataset)}: exact match by {label}, as in the table."
            file = file_name("onelayer", dataset, name)
            pictures.append(draw(folder, file, dataset_title(dataset), alt, _axes(panel, label)))
    return [Figure("Exact match of the best epoch.", pictures)] if pictures else []


def _axes(panel: Draw, label: str) -> Draw:
    def drawn(axes: Axes) -> None:
        panel(axes)
        axes.set_xlabel(label)
        axes.set_ylabel("exact match, %")
        axes.set_ylim(0, 103)
        legend(axes, columns=1)

    return drawn


def _by_kept(settings: list[SeedGroup], network: str) -> Draw:
    """The shared ticket by its fraction of kept weights; the other kinds as lines."""
    here = [s for s in settings if s.config.model == network]

    def panel(axes: Axes) -> None:
        _shared_points(axes, here, lambda s: kept(s.config))
        for name, colour, style in _LINES:
            for setting in here:
                if kind(setting.config) == name and setting.best:
                    axes.axhline(setting.best.mean, color=colour, ls=style, label=KINDS[name])
        axes.set_xlim(0, 1)

    return panel


def _by_depth(settings: list[SeedGroup]) -> Draw:
    """The shared ticket of each depth, at one fraction."""
    here = [s for s in settings if kept(s.config) == KEPT]
    return lambda axes: _shared_points(axes, here, lambda s: int(s.config.model.split("_")[1]))


def _shared_points(
    axes: Axes, settings: Sequence[SeedGroup], place: Callable[[SeedGroup], float]
) -> None:
    shared = sorted((s for s in settings if kind(s.config) == SHARED), key=place)
    stats: list[Stat | None] = [s.best for s in shared]
    points(axes, [place(s) for s in shared], stats, PointStyle(BLUE, "o", KINDS[SHARED]))


def _printed_table() -> Table:
    texts = [f"{fraction:.0%} of the trained" for fraction in printed.PRETRAINED_OF_TRAINED]
    pretrained = [
        f"{bleu:.2f} ({text})"
        for bleu, text in zip(printed.PRETRAINED_EMBEDDING, texts, strict=True)
    ]
    return Table(
        "The paper's numbers: BLEU on sentences. They are not comparable with exact matches of "
        "number words.",
        ("shared ticket with", *printed.DATA),
        [
            ["a random embedding", *(f"{bleu:.2f}" for bleu in printed.RANDOM_EMBEDDING)],
            ["a pretrained embedding", *pretrained],
        ],
        frozenset({1, 2}),
    )


def short_tables(settings: list[SeedGroup]) -> list[Table]:
    """A table for each data set."""
    compared = [setting for setting in settings if kept(setting.config) in (KEPT, 1.0)]
    columns = (*_COLUMNS, "exact match or top-1, %", *_SIZES[1:])
    return [
        Table(
            f"One-layer lottery tickets, {dataset_title(dataset)}",
            columns,
            [[*_described(s), best(s), *_sizes(s)[1:]] for s in here],
            frozenset(range(2, 6)),
        )
        for dataset, here in datasets(compared).items()
    ]


ITEM = Item(
    "onelayer",
    "One layer of random weights, and a mask for each layer",
    "One-layer tickets",
    runs,
    build,
    short_tables,
    claims=CLAIMS,
)
